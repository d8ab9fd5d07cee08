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

// With fewer channels than this the sums of one tap do not fill the registers: those of all taps are taken together,
// over a copy of the image with its padding, of which every tap meets every pixel.
constexpr int64_t kFewChannels = 6;

// The pixels of a block that tap `tap` meets: places in all images, and in the cotangent of the block.
inline void find_segments(const Convolution& c, const Block& block, int64_t tap, std::vector<Segment>& segments) {
  const auto& [depth, height, width] = c.axes;
  const int64_t x_tap = tap % width.taps, y_tap = tap / width.taps % height.taps;
  const int64_t z_tap = tap / width.taps / height.taps;
  const Range z_range = meets(depth, z_tap), y_range = meets(height, y_tap), x_range = meets(width, x_tap);
  const int64_t x_begin = std::max(x_range.begin, block.column);
  const int64_t x_end = std::min(x_range.end, block.column + block.columns);
  segments.clear();
  if (x_begin >= x_end) return;
  for (int64_t b = 0; b < block.images; ++b)
    for (int64_t z = z_range.begin; z < z_range.end; ++z) {
      const Range rows = block.along(z, height.out);
      for (int64_t y = std::max(y_range.begin, rows.begin); y < std::min(y_range.end, rows.end); ++y) {
        const int64_t image = ((block.image + b) * depth.image + depth.pixel(z, z_tap)) * height.image;
        const int64_t pixel = (image + height.pixel(y, y_tap)) * width.image + width.pixel(x_begin, x_tap);
        const int64_t row = b * block.rows + z * height.out + y - block.row;
        segments.push_back({pixel * c.channels, row * block.columns + x_begin - block.column, x_end - x_begin});
      }
    }
}

// What all windows of a block see, of two axes: [images, height, width, channels], zeros where that is padding.
struct Copy {
  int64_t height, width;
  std::vector<float> pixels;

  Copy(const Convolution& c, const Block& block)
      : height(c.axes[1].pixel(block.rows - 1, c.axes[1].taps - 1) + c.axes[1].before + 1),
        width(c.axes[2].pixel(block.columns - 1, c.axes[2].taps - 1) + c.axes[2].before + 1) {}

  void fill(const Convolution& c, const Block& block, const float* image) {
    const Axis &y_axis = c.axes[1], &x_axis = c.axes[2];
    const int64_t left = x_axis.pixel(block.column, 0);
    const int64_t begin = std::clamp<int64_t>(-left, 0, width);
    const int64_t end = std::clamp<int64_t>(x_axis.image - left, begin, width);
    pixels.assign(block.images * height * width * c.channels, 0.0f);
    for (int64_t b = 0; b < block.images; ++b)
      for (int64_t row = 0; row < height; ++row) {
        const int64_t y = y_axis.pixel(block.row, 0) + row;
        if (y < 0 || y >= y_axis.image || begin == end) continue;
        const float* from = image + (((block.image + b) * y_axis.image + y) * x_axis.image + left + begin) * c.channels;
        float* to = &pixels[((b * height + row) * width + begin) * c.channels];
        std::memcpy(to, from, (end - begin) * c.channels * sizeof(float));
      }
  }

  // All pixels of the block, and where the first tap meets them.
  void find_segments(const Convolution& c, const Block& block, std::vector<Segment>& segments) const {
    segments.clear();
    for (int64_t b = 0; b < block.images; ++b)
      for (int64_t y = 0; y < block.rows; ++y)
        segments.push_back({(b * height + y * c.axes[1].stride) * width * c.channels,
                            (b * block.rows + y) * block.columns, block.columns});
  }

  // Where each number of a window is, from its first.
  std::vector<int64_t> places(const Convolution& c) const {
    std::vector<int64_t> places;
    for (int64_t y = 0; y < c.axes[1].taps; ++y)
      for (int64_t x = 0; x < c.axes[2].taps; ++x)
        for (int64_t channel = 0; channel < c.channels; ++channel)
          places.push_back((y * c.axes[1].dilation * width + x * c.axes[2].dilation) * c.channels + channel);
    return places;
  }
};

// The gradient [*taps, channels, features] for the image [batch, *image, channels] and the cotangent
// [batch, *out, features], none of which is empty. Each sum is one thread's: their number does not change a bit.
template <typename Pool>
void kernel_gradient(Pool& pool, const Convolution& c, const float* image, const float* cotangent, float* gradient) {
  const Axis& depth = c.axes[0];
  const bool flat = depth.image == 1 && depth.out == 1 && depth.taps == 1 && depth.before == 0;
  const bool together = flat && c.channels < kFewChannels;
  const int64_t groups = together ? 1 : c.taps(), rows = together ? c.taps() * c.channels : c.channels;
  // Panels of the cotangent are copied, but for one that is whole: side by side, they stay in the cache.
  const bool copied = c.features != kPanel && c.features != kWidth;
  const int64_t height = depth.out * c.axes[1].out, width = c.axes[2].out;
  const std::vector<Block> blocks = blocks_of(c.batch, height, width);
  std::fill_n(gradient, c.taps() * c.channels * c.features, 0.0f);

  // The rows of a tile, as even as can be: few do not fill the registers.
  struct Tile {
    int64_t group, begin, end;
  };
  std::vector<Tile> tiles;
  const int64_t most = Panel(0, c.features).rows(), parts = (rows + most - 1) / most;
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t part = 0; part < parts; ++part)
      tiles.push_back({group, rows * part / parts, rows * (part + 1) / parts});
  const int64_t shares = std::min<int64_t>(pool.num_threads(), tiles.size());

  in_parallel(pool, shares, [&](int64_t share) {
    const size_t first_tile = tiles.size() * share / shares, last_tile = tiles.size() * (share + 1) / shares;
    std::vector<float> panels;
    std::vector<int64_t> places;
    std::vector<std::vector<Segment>> segments(groups);
    for (const Block& block : blocks) {
      const int64_t pixels = block.pixels();
      const float* block_cotangent =
          cotangent + ((block.image * height + block.row) * width + block.column) * c.features;
      if (copied) {
        panels.resize(pixels * padded(c.features));
        for (int64_t first = 0; first < c.features; first += kPanel) {
          const Panel panel(first, c.features);
          for (int64_t i = 0; i < pixels; ++i)
            std::memcpy(&panels[pixels * first + i * panel.width], block_cotangent + i * c.features + first,
                        panel.lanes * sizeof(float));
        }
      }
      Copy copy(c, block);
      if (together) {
        copy.fill(c, block, image);
        copy.find_segments(c, block, segments[0]);
        places = copy.places(c);
      } else {
        for (int64_t group = tiles[first_tile].group; group <= tiles[last_tile - 1].group; ++group)
          find_segments(c, block, group, segments[group]);
      }
      for (int64_t first = 0; first < c.features; first += kPanel) {
        const Panel panel(first, c.features);
        const bool wide = panel.width == kPanel;
        const auto run = together ? (wide ? kGradientWide<true>.data() : kGradientNarrow<true>.data())
                                  : (wide ? kGradientWide<false>.data() : kGradientNarrow<false>.data());
        for (size_t i = first_tile; i < last_tile; ++i) {
          const auto& [group, begin, end] = tiles[i];
          run[end - begin - 1](together ? copy.pixels.data() : image + begin, c.axes[2].stride * c.channels,
                               together ? &places[begin] : nullptr,
                               copied ? &panels[pixels * first] : block_cotangent, panel.width,
                               segments[group].data(), segments[group].size(),
                               gradient + (group * rows + begin) * c.features + first, c.features, panel.lanes);
        }
      }
    }
  });
}

}  // namespace cnn_jax
