"""People's own photographs: reading and writing them whole, deblurring many."""
