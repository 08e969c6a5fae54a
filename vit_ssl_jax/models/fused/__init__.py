"""A whole block as TPU kernels, in the place of the plain one."""
