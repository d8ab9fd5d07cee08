// The gradient of a convolution for its kernel.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "geometry.h"
#include "parallel.h"
#include "tiles.h"

namespace cnn_jax {

// Below so many channels what a window sees is copied to be the channels of one tap: more sums fill the registers.
constexpr int64_t kFewChannels = 6;

// The pixels of a block that tap `tap` meets: places in all images, and in the cotangent of the block.
inline void find_segments(const Convolution& c, const Block& block, int64_t tap, std::vector<Segment>& segments) {
  const auto& [depth, height, width] = c.axes;
  const int64_t x_tap = tap % width.taps, y_tap = tap / width.taps % height.taps;
  const int64_t z_tap = tap / width.taps / height.taps;
  const Range z_range = meets(depth, z_tap), y_range = meets(height, y_tap), x_range = meets(width, x_tap);
  segments.clear();
  if (x_range.begin == x_range.end) return;
  for (int64_t b = 0; b < block.images; ++b)
    for (int64_t z = z_range.begin; z < z_range.end; ++z) {
      const Range rows = block.along(z, height.out);
      for (int64_t y = std::max(y_range.begin, rows.begin); y < std::min(y_range.end, rows.end); ++y) {
        const int64_t image = ((block.image + b) * depth.image + depth.pixel(z, z_tap)) * height.image;
        const int64_t pixel = (image + height.pixel(y, y_tap)) * width.image + width.pixel(x_range.begin, x_tap);
        const int64_t row = b * block.rows + z * height.out + y - block.row;
        segments.push_back({pixel * c.channels, row * width.out + x_range.begin, x_range.end - x_range.begin});
      }
    }
}

// What the windows of a block see, [pixels, *taps, channels], of which `rows` is the product of the last; zeros where
// a tap meets none.
inline void unfold(const Convolution& c, const Block& block, const float* image, int64_t rows,
                   std::vector<Segment>& segments, std::vector<float>& to) {
  const int64_t stride = c.axes[2].stride * c.channels;
  to.assign(block.images * block.rows * c.axes[2].out * rows, 0.0f);
  for (int64_t tap = 0; tap < c.taps(); ++tap) {
    find_segments(c, block, tap, segments);
    for (const Segment& segment : segments) {
      float* seen = &to[segment.pixel * rows + tap * c.channels];
      const float* from = image + segment.image;
      for (int64_t i = 0; i < segment.length; ++i, seen += rows, from += stride)
        for (int64_t channel = 0; channel < c.channels; ++channel) seen[channel] = from[channel];
    }
  }
}

// The gradient [*taps, channels, features] for the image [batch, *image, channels] and the cotangent
// [batch, *out, features], none of which is empty. Each sum is one thread's: their number does not change a bit.
template <typename Pool>
void kernel_gradient(Pool& pool, const Convolution& c, const float* image, const float* cotangent, float* gradient) {
  const bool unfolded = c.channels < kFewChannels;
  // Sums for each feature: of a tap at a time, or of all.
  const int64_t groups = unfolded ? 1 : c.taps(), rows = unfolded ? c.taps() * c.channels : c.channels;
  // Panels of the cotangent are copied, but for one that is whole: side by side, they stay in the cache.
  const bool copied = c.features != kPanel && c.features != kWidth;
  const int64_t width = c.axes[2].out;
  const std::vector<Block> blocks = blocks_of(c.batch, c.axes[0].out * c.axes[1].out, width);
  std::fill_n(gradient, c.taps() * c.channels * c.features, 0.0f);

  struct Task {
    int64_t group, begin, end;  // rows
  };
  std::vector<Task> tasks;
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t row = 0; row < rows; row += 4 * kRows) tasks.push_back({group, row, std::min(row + 4 * kRows, rows)});
  const int64_t shares = std::min<int64_t>(pool.num_threads(), tasks.size());

  in_parallel(pool, shares, [&](int64_t share) {
    const size_t first_task = tasks.size() * share / shares, last_task = tasks.size() * (share + 1) / shares;
    std::vector<float> images, panels;
    std::vector<std::vector<Segment>> segments(groups);
    for (const Block& block : blocks) {
      const int64_t pixels = block.images * block.rows * width;
      const float* block_cotangent =
          cotangent + (block.image * c.axes[0].out * c.axes[1].out + block.row) * width * c.features;
      if (copied) {
        panels.resize(pixels * padded(c.features));
        for (int64_t first = 0; first < c.features; first += kPanel) {
          const Panel panel(first, c.features);
          for (int64_t i = 0; i < pixels; ++i)
            std::memcpy(&panels[pixels * first + i * panel.width], block_cotangent + i * c.features + first,
                        panel.lanes * sizeof(float));
        }
      }
      if (unfolded) {
        unfold(c, block, image, rows, segments[0], images);
        segments[0] = {{0, 0, pixels}};
      } else {
        for (int64_t group = tasks[first_task].group; group <= tasks[last_task - 1].group; ++group)
          find_segments(c, block, group, segments[group]);
      }
      const int64_t image_step = unfolded ? rows : c.axes[2].stride * c.channels;
      for (int64_t first = 0; first < c.features; first += kPanel) {
        const Panel panel(first, c.features);
        const auto tiles = panel.width == kPanel ? kGradientWide.data() : kGradientNarrow.data();
        const float* features = copied ? &panels[pixels * first] : block_cotangent;
        for (size_t i = first_task; i < last_task; ++i) {
          const Task& task = tasks[i];
          // As even as can be: few rows do not fill the registers.
          const int64_t count = task.end - task.begin, parts = (count + panel.rows() - 1) / panel.rows();
          for (int64_t part = 0; part < parts; ++part) {
            const int64_t begin = task.begin + count * part / parts, end = task.begin + count * (part + 1) / parts;
            tiles[end - begin - 1]((unfolded ? images.data() : image) + begin, image_step, features, panel.width,
                                   segments[task.group].data(), segments[task.group].size(),
                                   gradient + (task.group * rows + begin) * c.features + first, c.features,
                                   panel.lanes);
          }
        }
      }
    }
  });
}

}  // namespace cnn_jax
