"""LPIPS, SSIM and NIQE for BasicSR's `val: metrics`; PSNR is BasicSR's own `calculate_psnr`."""
