// Where each pixel of a resized axis comes from, with Pillow's filters and fixed-point weights. These follow
// src/libImaging/Resample.c of Pillow, and Geometry.c for the nearest pixel.
//
// If the compiler may fuse a multiplication and an addition (-march=native), -ffp-contract=off keeps it from
// changing a weight; the CMake target passes this option on.
#pragma once

#ifdef __FAST_MATH__
#error "-ffast-math changes the weights of the resize: compile without it"
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "vivit/axes.hpp"

namespace vivit::detail {

inline constexpr int precision_bits = 32 - 8 - 2;
inline constexpr std::int32_t half = 1 << (precision_bits - 1);
inline constexpr double pi = 3.14159265358979323846;

struct Filter {
    double (*weight)(double);
    double support;
};

[[nodiscard]] inline double sinc(double x) { return x == 0 ? 1 : std::sin(x * pi) / (x * pi); }

/// Pillow's filters by number; 0, the nearest pixel, has none.
[[nodiscard]] inline const Filter& pillow_filter(int number) {
    static constexpr Filter filters[] = {
        {nullptr, 0},
        {[](double x) { return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0.0; }, 3},  // lanczos
        {[](double x) { return std::fabs(x) < 1 ? 1 - std::fabs(x) : 0.0; }, 1},       // bilinear
        {[](double x) {                                                                // bicubic, a = -0.5
             constexpr double a = -0.5;
             x = std::fabs(x);
             if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
             return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
         },
         2},
        {[](double x) { return -0.5 < x && x <= 0.5 ? 1.0 : 0.0; }, 0.5},  // box
        {[](double x) {                                                    // hamming
             x = std::fabs(x);
             if (x == 0) return 1.0;
             return x < 1 ? std::sin(x * pi) / (x * pi) * (double(0.54f) + double(0.46f) * std::cos(x * pi)) : 0.0;
         },
         1},
    };
    return filters[number];
}

/// For each kept pixel of an axis: which source pixels it is computed from, and their weights * 2^22.
class Taps {
public:
    struct Tap {
        int first, count;
    };

    Taps(const Axis& axis, int resample) : copies_(axis.source == axis.resized || resample == 0) {
        if (copies_)
            copy_pixels(axis);
        else
            weigh_pixels(axis, pillow_filter(resample));
        for (const Tap& tap : taps_) {
            low_ = std::min(low_, tap.first);
            high_ = std::max(high_, tap.first + tap.count);
        }
    }

    [[nodiscard]] int size() const noexcept { return int(taps_.size()); }
    /// Pixels are only moved: each has one source.
    [[nodiscard]] bool copies() const noexcept { return copies_; }
    /// The range of source pixels that are needed.
    [[nodiscard]] int low() const noexcept { return low_; }
    [[nodiscard]] int high() const noexcept { return high_; }
    [[nodiscard]] const Tap& operator[](int i) const { return taps_[std::size_t(i)]; }
    [[nodiscard]] const std::int32_t* weights(int i) const { return &weights_[std::size_t(i) * std::size_t(stride_)]; }
    /// Weights for interleaved RGB, two taps at a time: (k0 k0 k0 k1 k1 k1 0 0).
    [[nodiscard]] const std::int32_t* pairs(int i) const {
        return &pairs_[std::size_t(i) * std::size_t(stride_ / 2 * 8)];
    }

private:
    void copy_pixels(const Axis& axis) {
        // Pillow sums the steps, and so do we: the rounding of the sum decides which pixel is the nearest.
        const double step = axis.source == axis.resized ? 1.0 : double(axis.source) / axis.resized;
        double at = step * 0.5;
        for (int i = 0; i < axis.stop; ++i, at += step)
            if (i >= axis.start) taps_.push_back({std::min(int(at), axis.source - 1), 1});
    }

    void weigh_pixels(const Axis& axis, const Filter& filter) {
        const double scale = double(axis.source) / axis.resized, filter_scale = std::max(scale, 1.0);
        const double support = filter.support * filter_scale, inverse = 1.0 / filter_scale;
        stride_ = int(std::ceil(support)) * 2 + 2;  // even: taps come in pairs below
        weights_.assign(std::size_t(axis.kept()) * std::size_t(stride_), 0);
        pairs_.assign(weights_.size() * 4, 0);
        std::vector<double> weights(std::size_t(stride_), 0.0);
        for (int i = 0; i < axis.kept(); ++i) {
            const double center = (axis.start + i + 0.5) * scale;
            const int first = std::max(0, int(center - support + 0.5));
            const int count = std::min(axis.source, int(center + support + 0.5)) - first;
            double sum = 0;
            for (int t = 0; t < count; ++t)
                sum += weights[std::size_t(t)] = filter.weight((t + first - center + 0.5) * inverse);
            for (int t = 0; t < count; ++t) {
                const double weight = sum != 0 ? weights[std::size_t(t)] / sum : weights[std::size_t(t)];
                set_weight(i, t, std::int32_t(weight * (1 << precision_bits) + (weight < 0 ? -0.5 : 0.5)));
            }
            taps_.push_back({first, count});
        }
    }

    void set_weight(int i, int t, std::int32_t weight) {
        weights_[std::size_t(i) * std::size_t(stride_) + std::size_t(t)] = weight;
        std::int32_t* pair = &pairs_[(std::size_t(i) * std::size_t(stride_) + std::size_t(t & ~1)) * 4];
        std::fill_n(pair + (t & 1) * 3, 3, weight);
    }

    bool copies_;
    int stride_ = 0, low_ = 1 << 30, high_ = 0;
    std::vector<Tap> taps_;
    std::vector<std::int32_t> weights_, pairs_;
};

}  // namespace vivit::detail
