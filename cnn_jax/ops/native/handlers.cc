// What XLA calls, through its foreign function interface: convolutions in float32, channels last.
//
// Beside the arrays they need the memory of the kernel once more and, for each thread, that of some hundred pixels.
#include <cstdint>
#include <new>

#include "convolution.h"
#include "kernel_gradient.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Array = ffi::Buffer<ffi::F32>;
using Numbers = ffi::Span<const int64_t>;

// Images [B, *space, C], kernels [*window, C, F] and results [B, *out, F], of one to three axes of space.
cnn_jax::Convolution convolution(Array::Dimensions image, Array::Dimensions kernel, Array::Dimensions out,
                                 Numbers strides, Numbers before, Numbers dilation) {
  const int rank = static_cast<int>(strides.size());
  cnn_jax::Convolution c{image[0], image[rank + 1], kernel[rank + 1], {}};
  for (int axis = 0; axis < rank; ++axis)
    c.axes[cnn_jax::kRank - rank + axis] = {image[axis + 1], out[axis + 1], kernel[axis],
                                            strides[axis],   before[axis],  dilation[axis]};
  return c;
}

template <typename Body>
ffi::Error run(const Body& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory in a convolution");
  }
  return ffi::Error::Success();
}

ffi::Error Convolve(ffi::ThreadPool pool, Array image, Array kernel, ffi::Result<Array> out, Numbers strides,
                    Numbers before, Numbers dilation) {
  return run([&] {
    const auto c =
        convolution(image.dimensions(), kernel.dimensions(), out->dimensions(), strides, before, dilation);
    cnn_jax::convolve(pool, c, false, image.typed_data(), kernel.typed_data(), out->typed_data());
  });
}

ffi::Error InputGradient(ffi::ThreadPool pool, Array cotangent, Array kernel, ffi::Result<Array> gradient,
                         Numbers strides, Numbers before, Numbers dilation) {
  return run([&] {
    const auto c =
        convolution(gradient->dimensions(), kernel.dimensions(), cotangent.dimensions(), strides, before, dilation);
    cnn_jax::convolve(pool, c, true, cotangent.typed_data(), kernel.typed_data(), gradient->typed_data());
  });
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Array image, Array cotangent, ffi::Result<Array> gradient,
                          Numbers strides, Numbers before, Numbers dilation) {
  return run([&] {
    const auto c =
        convolution(image.dimensions(), gradient->dimensions(), cotangent.dimensions(), strides, before, dilation);
    cnn_jax::kernel_gradient(pool, c, image.typed_data(), cotangent.typed_data(), gradient->typed_data());
  });
}

auto signature() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("before")
      .Attr<Numbers>("dilation");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_convolve, Convolve, signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_input_gradient, InputGradient, signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_kernel_gradient, KernelGradient, signature());
