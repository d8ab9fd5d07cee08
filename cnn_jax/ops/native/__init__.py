"""Convolutions in C++ for CPUs: XLA's own run at a half to three quarters of what the processor can do.

* `library`: compiles the sources for this processor, once, and makes them known to XLA;
* `calls`: the convolution and its gradients as calls of it;
* `handlers.cc`: what XLA calls; `convolution.h`, `kernel_gradient.h`: the loops over images; `geometry.h`: which pixels
  meet which taps; `tiles.h`: the innermost loops; `parallel.h`: threads.
"""
