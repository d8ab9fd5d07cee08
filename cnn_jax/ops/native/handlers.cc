// The functions that XLA calls, by its foreign function interface.
#include <cstdint>

#include "convolution.h"
#include "kernel_gradient.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Numbers = ffi::Span<const int64_t>;
using Image = ffi::Buffer<ffi::F32>;
using Dimensions = Image::Dimensions;

// Missing axes of space come first.
cnn_jax::Convolution geometry(Dimensions image, Dimensions kernel, Dimensions out, Numbers strides, Numbers before,
                              Numbers dilation) {
  const int rank = static_cast<int>(strides.size()), missing = cnn_jax::kRank - rank;
  cnn_jax::Convolution result{image[0], image[rank + 1], kernel[rank + 1], {}};
  for (int axis = 0; axis < cnn_jax::kRank; ++axis) {
    const int i = axis - missing;
    result.axes[axis] = i < 0 ? cnn_jax::Axis{1, 1, 1, 1, 0, 1}
                              : cnn_jax::Axis{image[i + 1], out[i + 1], kernel[i], strides[i], before[i], dilation[i]};
  }
  return result;
}

ffi::Error Convolve(ffi::ThreadPool pool, Image image, Image kernel, ffi::Result<Image> out, Numbers strides,
                    Numbers before, Numbers dilation) {
  const auto c = geometry(image.dimensions(), kernel.dimensions(), out->dimensions(), strides, before, dilation);
  cnn_jax::convolve(pool, c, false, image.typed_data(), kernel.typed_data(), out->typed_data());
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool pool, Image cotangent, Image kernel, ffi::Result<Image> gradient,
                         Numbers strides, Numbers before, Numbers dilation) {
  const auto c =
      geometry(gradient->dimensions(), kernel.dimensions(), cotangent.dimensions(), strides, before, dilation);
  cnn_jax::convolve(pool, c, true, cotangent.typed_data(), kernel.typed_data(),
                    gradient->typed_data());
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Image image, Image cotangent, ffi::Result<Image> gradient,
                          Numbers strides, Numbers before, Numbers dilation) {
  const auto c =
      geometry(image.dimensions(), gradient->dimensions(), cotangent.dimensions(), strides, before, dilation);
  cnn_jax::kernel_gradient(pool, c, image.typed_data(), cotangent.typed_data(),
                           gradient->typed_data());
  return ffi::Error::Success();
}

auto signature() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Image>()
      .Arg<Image>()
      .Ret<Image>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("before")
      .Attr<Numbers>("dilation");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_convolve, Convolve, signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_input_gradient, InputGradient, signature());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cnn_jax_kernel_gradient, KernelGradient, signature());
