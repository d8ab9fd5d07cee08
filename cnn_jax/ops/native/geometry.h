// Which pixels meet which taps.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

namespace cnn_jax {

constexpr int kRank = 3;  // axes of space; a missing one comes first, and has one pixel and one tap

// Along an axis, a tap of a pixel of the result meets pixel `stride * result + dilation * tap - before` of the image.
struct Axis {
  int64_t image = 1, out = 1, taps = 1, stride = 1, before = 0, dilation = 1;

  int64_t pixel(int64_t result, int64_t tap) const { return stride * result + dilation * tap - before; }
};

// Images [batch, *image, channels], kernels [*taps, channels, features] and results [batch, *out, features].
struct Convolution {
  int64_t batch, channels, features;
  std::array<Axis, kRank> axes;

  int64_t taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
};

// Pixels of the target, along one axis, that meet the same taps at the same distances in the source.
struct Class {
  struct Tap {
    int64_t tap, distance;  // from the first pixel of the source that is met
  };
  std::vector<Tap> taps;
  std::vector<int64_t> targets, sources;  // ascending; the first pixel that each meets
};

// The target is the result and the source the image; or, transposed, the target is the image's gradient and the source
// the cotangent. Then taps are counted from the last: so they ascend with the pixels that they meet.
inline std::vector<Class> classes_of(const Axis& axis, bool transposed) {
  const int64_t targets = transposed ? axis.image : axis.out, sources = transposed ? axis.out : axis.image;
  // The taps of a target that meet anything follow each other at a distance that is the same for all targets.
  const int64_t common = std::gcd(axis.stride, axis.dilation);
  const int64_t apart = transposed ? axis.stride / common : 1, distance = axis.dilation / (transposed ? common : 1);
  // The source pixel of a target's tap, times `per`: no multiple of it where the tap meets nothing.
  const int64_t per = transposed ? axis.stride : 1;
  const auto place = [&](int64_t target, int64_t tap) {
    return transposed ? target + axis.before - axis.dilation * (axis.taps - 1 - tap) : axis.pixel(target, tap);
  };
  std::vector<Class> classes;
  std::map<std::pair<int64_t, int64_t>, size_t> known;  // the first tap that meets anything, and how many do
  for (int64_t target = 0; target < targets; ++target) {
    // The first tap at or behind the source's first pixel, then the first of the next few that meets one.
    const int64_t lacking = -place(target, 0);
    int64_t first = lacking > 0 ? (lacking + axis.dilation - 1) / axis.dilation : 0;
    for (int64_t tried = 0; tried < apart && place(target, first) % per != 0; ++tried) ++first;
    int64_t count = 0;
    if (first < axis.taps && place(target, first) % per == 0 && place(target, first) / per < sources) {
      const int64_t by_taps = (axis.taps - 1 - first) / apart;
      const int64_t by_pixels = (sources - 1 - place(target, first) / per) / distance;
      count = 1 + std::min(by_taps, by_pixels);
    }
    const auto [entry, is_new] = known.try_emplace({count ? first : 0, count}, classes.size());
    if (is_new) {
      classes.emplace_back();
      for (int64_t i = 0; i < count; ++i) classes.back().taps.push_back({first + i * apart, i * distance});
    }
    classes[entry->second].targets.push_back(target);
    classes[entry->second].sources.push_back(count ? place(target, first) / per : 0);
  }
  return classes;
}

struct Range {
  int64_t begin, end;  // before the end
};

// The result's pixels whose tap `tap` meets the image.
inline Range meets(const Axis& axis, int64_t tap) {
  const int64_t first = axis.pixel(0, tap);
  const auto reach = [&](int64_t pixels) { return pixels <= 0 ? 0 : (pixels + axis.stride - 1) / axis.stride; };
  const int64_t end = std::min(axis.out, reach(axis.image - first));
  return {std::min(reach(-first), end), end};
}

// What is worked on at a time, because it stays in the cache: consecutive images, of each consecutive rows, which are
// counted over the first two axes of space, or a part of a single row of a single image. It lies in one piece.
struct Block {
  int64_t image, images, row, rows, column, columns;

  int64_t pixels() const { return images * rows * columns; }

  // Its rows at `first`, a place along the first axis of space whose second axis has `height` rows.
  Range along(int64_t first, int64_t height) const {
    const int64_t begin = std::clamp<int64_t>(row - first * height, 0, height);
    return {begin, std::clamp<int64_t>(row + rows - first * height, begin, height)};
  }
};

constexpr int64_t kBlockPixels = 256;

// Args: images of `rows` rows of `width` pixels each.
inline std::vector<Block> blocks_of(int64_t batch, int64_t rows, int64_t width) {
  const int64_t pixels = rows * width, images = std::max<int64_t>(1, kBlockPixels / pixels);
  const int64_t parts = std::max<int64_t>(1, pixels / kBlockPixels), height = (rows + parts - 1) / parts;
  const int64_t columns = width < 2 * kBlockPixels ? width : kBlockPixels;
  std::vector<Block> blocks;
  for (int64_t image = 0; image < batch; image += images)
    for (int64_t row = 0; row < rows; row += height)
      for (int64_t column = 0; column < width; column += columns)
        blocks.push_back({image, std::min(images, batch - image), row, std::min(height, rows - row), column,
                          std::min(columns, width - column)});
  return blocks;
}

}  // namespace cnn_jax
