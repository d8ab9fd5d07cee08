// The innermost loops: sums that stay in vector registers. Lengths, steps and offsets are in floats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace cnn_jax {

// Floats of a vector, and how many rows of two vectors fill the registers, which leaves some for what is multiplied.
#if defined(__AVX512F__)
constexpr int64_t kWidth = 16, kRows = 8;
#elif defined(__AVX__)
constexpr int64_t kWidth = 8, kRows = 6;
#elif defined(__aarch64__)
constexpr int64_t kWidth = 4, kRows = 8;
#else
constexpr int64_t kWidth = 4, kRows = 6;
#endif
constexpr int64_t kPanel = 2 * kWidth;
constexpr int64_t kNarrowRows = 8;  // of one vector: enough to hide the latency of a multiplication

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));
typedef float Unaligned __attribute__((vector_size(kWidth * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }

// Write the first `lanes` of N vectors, or add them to what is there.
template <int N, bool kAdd>
inline void store(const Vector* sums, float* to, int64_t lanes) {
  if (lanes == N * kWidth) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      Vector value = sums[n];
      if (kAdd) value += load(to + n * kWidth);
      *reinterpret_cast<Unaligned*>(to + n * kWidth) = value;
    }
    return;
  }
  float values[N * kWidth];
  std::memcpy(values, sums, sizeof values);
  for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = kAdd ? to[lane] + values[lane] : values[lane];
}

// A stretch of a source pixel's surroundings that meets as many rows of a panel of weights.
struct Run {
  int64_t source, weight, length;
};

// R pixels of the target: for each the sum over the runs of the source's numbers times the rows of N vectors.
template <int R, int N>
void convolve_tile(const float* const* source, float* const* target, const float* weights, int64_t weight_step,
                   const Run* runs, size_t run_count, int64_t lanes) {
  Vector sums[R][N] = {};
  for (size_t run = 0; run < run_count; ++run) {
    const float* weight = weights + runs[run].weight * weight_step;
    const float* from[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) from[r] = source[r] + runs[run].source;
    for (int64_t k = 0; k < runs[run].length; ++k, weight += weight_step) {
      Vector w[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) w[n] = load(weight + n * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[r][n] += w[n] * from[r][k];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store<N, false>(sums[r], target[r], lanes);
}

// Pixels in a row where a tap meets the image: the place of the first in the image, in floats, and in the cotangent, in
// pixels.
struct Segment {
  int64_t image, pixel, length;
};

// R rows of a kernel's gradient: the sums over pixels of a number of the image times N vectors of the cotangent's
// features. The numbers are the first R from a pixel on; or, scattered, those at `places` from it.
template <int R, int N, bool kScattered>
void gradient_tile(const float* image, int64_t image_step, const int64_t* places, const float* cotangent,
                   int64_t cotangent_step, const Segment* segments, size_t segment_count, float* gradient,
                   int64_t gradient_step, int64_t lanes) {
  Vector sums[R][N] = {};
  int64_t at[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) at[r] = kScattered ? places[r] : r;
  for (size_t segment = 0; segment < segment_count; ++segment) {
    const float* x = image + segments[segment].image;
    const float* g = cotangent + segments[segment].pixel * cotangent_step;
    for (int64_t i = segments[segment].length; i > 0; --i, x += image_step, g += cotangent_step) {
      Vector features[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) features[n] = load(g + n * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[r][n] += features[n] * x[at[r]];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store<N, true>(sums[r], gradient + r * gradient_step, lanes);
}

// The tiles of 1, 2, ... rows.
template <int N, size_t... R>
constexpr auto convolve_tiles_of(std::index_sequence<R...>) {
  return std::array{&convolve_tile<static_cast<int>(R) + 1, N>...};
}
template <int N, bool kScattered, size_t... R>
constexpr auto gradient_tiles_of(std::index_sequence<R...>) {
  return std::array{&gradient_tile<static_cast<int>(R) + 1, N, kScattered>...};
}
constexpr auto kConvolveNarrow = convolve_tiles_of<1>(std::make_index_sequence<kNarrowRows>());
constexpr auto kConvolveWide = convolve_tiles_of<2>(std::make_index_sequence<kRows>());
template <bool kScattered>
constexpr auto kGradientNarrow = gradient_tiles_of<1, kScattered>(std::make_index_sequence<kNarrowRows>());
template <bool kScattered>
constexpr auto kGradientWide = gradient_tiles_of<2, kScattered>(std::make_index_sequence<kRows>());
constexpr int64_t kMostRows = kRows > kNarrowRows ? kRows : kNarrowRows;

// Some of the features or channels that are computed at once: a panel, the last of which may be narrow or not full.
struct Panel {
  int64_t first, lanes, width;

  Panel(int64_t first, int64_t count)
      : first(first), lanes(count - first < kPanel ? count - first : kPanel), width(lanes > kWidth ? kPanel : kWidth) {}
  int64_t rows() const { return width == kPanel ? kRows : kNarrowRows; }
};

// All panels of `count` numbers together.
inline int64_t padded(int64_t count) { return (count + kWidth - 1) / kWidth * kWidth; }

}  // namespace cnn_jax
