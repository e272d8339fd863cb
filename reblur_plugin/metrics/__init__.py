"""LPIPS, SSIM, NIQE and reblurability for BasicSR's `val: metrics`; PSNR is BasicSR's own `calculate_psnr`."""
