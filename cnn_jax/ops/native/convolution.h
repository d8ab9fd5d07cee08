// Convolution of images with kernels, and the gradient for the images, which is one too.
//
// Nothing is padded, unfolded or multiplied with zeros: pixels that meet the same taps form a class, and the innermost
// loop runs over pixels of one class, of one image or of several.
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

// Of all results: fewer do not pay for a copy of the kernel (timed with 512 channels and 4 to 98 pixels).
constexpr int64_t kFewPixels = 32;

// The kernel as panels of outputs, each [*taps, inputs, panel.width]: features for a result; channels, transposed, for
// the image's gradient, whose taps are counted from the last.
template <typename Pool>
std::vector<float> panels_of(Pool& pool, const Convolution& c, const float* kernel, bool transposed) {
  const int64_t inputs = transposed ? c.features : c.channels, outputs = transposed ? c.channels : c.features;
  std::vector<float> panels(c.taps() * inputs * padded(outputs));
  in_parallel(pool, (outputs + kPanel - 1) / kPanel, [&](int64_t index) {
    const Panel panel(index * kPanel, outputs);
    float* to = panels.data() + c.taps() * inputs * panel.first;
    for (int64_t tap = 0; tap < c.taps(); ++tap, to += inputs * panel.width) {
      if (!transposed) {
        const float* from = kernel + tap * inputs * outputs + panel.first;
        for (int64_t k = 0; k < inputs; ++k)
          std::memcpy(to + k * panel.width, from + k * outputs, panel.lanes * sizeof(float));
        continue;
      }
      const float* from = kernel + ((c.taps() - 1 - tap) * outputs + panel.first) * inputs;
      for (int64_t part = 0; part < inputs; part += kWidth)  // whose lines of the cache are written to lane by lane
        for (int64_t lane = 0; lane < panel.lanes; ++lane)
          for (int64_t k = part; k < std::min(part + kWidth, inputs); ++k)
            to[k * panel.width + lane] = from[lane * inputs + k];
    }
  });
  return panels;
}

// What each class of pixels meets: taps next to each other along the last axis are one run.
//
// Args: the classes along each axis, and the source's pixels along the last two.
inline std::vector<std::vector<Run>> runs_of(const Convolution& c, const std::array<std::vector<Class>, kRank>& classes,
                                             int64_t height, int64_t width, int64_t inputs) {
  std::vector<std::vector<Run>> all;
  for (const Class& z_class : classes[0])
    for (const Class& y_class : classes[1])
      for (const Class& x_class : classes[2]) {
        std::vector<Run>& runs = all.emplace_back();
        for (const Class::Tap& z : z_class.taps)
          for (const Class::Tap& y : y_class.taps)
            for (size_t i = 0; i < x_class.taps.size(); ++i) {
              const Class::Tap& x = x_class.taps[i];
              if (i > 0 && x.tap == x_class.taps[i - 1].tap + 1 && x.distance == x_class.taps[i - 1].distance + 1) {
                runs.back().length += inputs;
                continue;
              }
              runs.push_back({((z.distance * height + y.distance) * width + x.distance) * inputs,
                              ((z.tap * c.axes[1].taps + y.tap) * c.axes[2].taps + x.tap) * inputs, inputs});
            }
      }
  return all;
}

// Where those of some ascending numbers are that lie in a range.
inline Range places(const std::vector<int64_t>& numbers, const Range& range) {
  const auto place = [&](int64_t number) {
    return std::lower_bound(numbers.begin(), numbers.end(), number) - numbers.begin();
  };
  return {place(range.begin), place(range.end)};
}

// The result [batch, *out, features] of the source [batch, *image, channels]; or, transposed, the image's gradient
// [batch, *image, channels], whose source is the cotangent [batch, *out, features]. None of them is empty.
template <typename Pool>
void convolve(Pool& pool, const Convolution& c, bool transposed, const float* source, const float* kernel,
              float* target) {
  const int64_t inputs = transposed ? c.features : c.channels, outputs = transposed ? c.channels : c.features;
  std::array<int64_t, kRank> from, to;
  std::array<std::vector<Class>, kRank> classes;
  for (int axis = 0; axis < kRank; ++axis) {
    from[axis] = transposed ? c.axes[axis].out : c.axes[axis].image;
    to[axis] = transposed ? c.axes[axis].image : c.axes[axis].out;
    classes[axis] = classes_of(c.axes[axis], transposed);
  }
  const std::vector<std::vector<Run>> runs = runs_of(c, classes, from[1], from[2], inputs);
  // Panels are read once for each few pixels: side by side they stay in the cache.
  const bool as_it_is = !transposed && outputs % kWidth == 0 && c.batch * to[0] * to[1] * to[2] < kFewPixels;
  const std::vector<float> panels = as_it_is ? std::vector<float>() : panels_of(pool, c, kernel, transposed);
  const std::vector<Block> blocks = blocks_of(c.batch, to[0] * to[1], to[2]);

  // The pixels of a block that are of a class along each axis.
  const auto of_class = [&](const Block& block, const Class& z_class, const Class& y_class, const Class& x_class,
                            const std::vector<Run>& met, const Panel& panel) {
    const float* weights = as_it_is ? kernel + panel.first : panels.data() + c.taps() * inputs * panel.first;
    const int64_t weight_step = as_it_is ? outputs : panel.width;
    const auto tiles = panel.width == kPanel ? kConvolveWide.data() : kConvolveNarrow.data();
    const float* sources[kMostRows];
    float* targets[kMostRows];
    int64_t count = 0;
    const auto flush = [&] {
      if (count) tiles[count - 1](sources, targets, weights, weight_step, met.data(), met.size(), panel.lanes);
      count = 0;
    };
    const Range columns = places(x_class.targets, {block.column, block.column + block.columns});
    for (size_t i = 0; i < z_class.targets.size(); ++i) {
      const std::vector<int64_t>& rows = y_class.targets;
      const auto [begin, end] = places(rows, block.along(z_class.targets[i], to[1]));
      for (int64_t image = block.image; image < block.image + block.images; ++image)
        for (int64_t j = begin; j < end; ++j) {
          const int64_t source_row = (image * from[0] + z_class.sources[i]) * from[1] + y_class.sources[j];
          const int64_t target_row = (image * to[0] + z_class.targets[i]) * to[1] + rows[j];
          for (int64_t k = columns.begin; k < columns.end; ++k) {
            sources[count] = source + (source_row * from[2] + x_class.sources[k]) * inputs;
            targets[count] = target + (target_row * to[2] + x_class.targets[k]) * outputs + panel.first;
            if (++count == panel.rows()) flush();
          }
        }
    }
    flush();
  };

  in_parallel(pool, blocks.size(), [&](int64_t index) {
    for (int64_t first = 0; first < outputs; first += kPanel) {
      auto met = runs.begin();
      for (const Class& z_class : classes[0])
        for (const Class& y_class : classes[1])
          for (const Class& x_class : classes[2])
            of_class(blocks[index], z_class, y_class, x_class, *met++, Panel(first, outputs));
    }
  });
}

}  // namespace cnn_jax
