// Pillow's resize of 8-bit images, bit for bit: two passes, each along one axis, with 8-bit pixels in
// between, on only the pixels that the crop depends on. Filters and fixed-point weights follow
// src/libImaging/Resample.c of Pillow, and Geometry.c for the nearest pixel.
//
// On x86 the inner loops exist twice: AVX2 is used where the processor has it (define VIVIT_PORTABLE to
// leave it out). The results are the same bits. Where the compiler may fuse a multiplication and an addition
// (-march=native), -ffp-contract=off keeps it from changing a weight; the CMake target passes it on.
#pragma once

#if !defined(__GNUC__)
#error "vivit needs GCC or Clang"
#endif
#ifdef __FAST_MATH__
#error "-ffast-math changes the weights of the resize: compile without it"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && !defined(VIVIT_PORTABLE)
#include <immintrin.h>
#endif

#include "vivit/axes.hpp"

namespace vivit::detail {

constexpr int precision_bits = 32 - 8 - 2;
constexpr std::int32_t half = 1 << (precision_bits - 1);
constexpr double pi = 3.14159265358979323846;

struct Filter {
    double (*weight)(double);
    double support;
};

inline double sinc(double x) { return x == 0 ? 1 : std::sin(x * pi) / (x * pi); }

/// Pillow's filters by number; 0, the nearest pixel, has none.
inline Filter pillow_filter(int number) {
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
             return x < 1 ? std::sin(x * pi) / (x * pi) * (0.54f + 0.46f * std::cos(x * pi)) : 0.0;
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

    int size() const { return int(taps_.size()); }
    /// Pixels are only moved: each has one source.
    bool copies() const { return copies_; }
    /// The range of source pixels that are needed at all.
    int low() const { return low_; }
    int high() const { return high_; }
    const Tap& operator[](int i) const { return taps_[std::size_t(i)]; }
    const std::int32_t* weights(int i) const { return &weights_[std::size_t(i) * std::size_t(stride_)]; }
    /// Weights for interleaved RGB, two taps at a time: (k0 k0 k0 k1 k1 k1 0 0).
    const std::int32_t* pairs(int i) const { return &pairs_[std::size_t(i) * std::size_t(stride_ / 2 * 8)]; }

private:
    void copy_pixels(const Axis& axis) {
        // Pillow adds up the step, and so do we: the sum's rounding decides which pixel is the nearest.
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

inline std::uint8_t to_byte(std::int32_t sum) { return std::uint8_t(std::clamp(sum >> precision_bits, 0, 255)); }

/// The inner loops. Those along x read up to 5 bytes beyond the last pixel that is needed of a row.
struct Loops {
    /// Resize one row, or four, of interleaved RGB along x.
    void (*row)(const std::uint8_t* row, std::uint8_t* out, const Taps& taps);
    void (*four_rows)(const std::uint8_t* const* rows, std::uint8_t* const* out, const Taps& taps);
    /// One row of a resize along y: `width` bytes from `count` rows that lie `stride` bytes apart.
    void (*column)(const std::uint8_t* rows, std::ptrdiff_t stride, int count, const std::int32_t* weights, int width,
                   std::uint8_t* out);
};

/// Loops for any processor.
struct Portable {
    static void row(const std::uint8_t* row, std::uint8_t* out, const Taps& taps) {
        for (int i = 0; i < taps.size(); ++i) {
            const std::uint8_t* pixel = row + taps[i].first * 3;
            const std::int32_t* weights = taps.weights(i);
            std::int32_t sums[3] = {half, half, half};
            for (int t = 0; t < taps[i].count; ++t, pixel += 3)
                for (int c = 0; c < 3; ++c) sums[c] += pixel[c] * weights[t];
            for (int c = 0; c < 3; ++c) out[i * 3 + c] = to_byte(sums[c]);
        }
    }

    static void four_rows(const std::uint8_t* const* rows, std::uint8_t* const* out, const Taps& taps) {
        for (int r = 0; r < 4; ++r) row(rows[r], out[r], taps);
    }

    static void column(const std::uint8_t* rows, std::ptrdiff_t stride, int count, const std::int32_t* weights,
                       int width, std::uint8_t* out) {
        constexpr int block = 64;  // sums that stay in registers or close by
        for (int x = 0; x < width; x += block) {
            const int size = std::min(block, width - x);
            std::int32_t sums[block];
            std::fill_n(sums, size, half);
            for (int t = 0; t < count; ++t) {
                const std::uint8_t* at = rows + t * stride + x;
                for (int i = 0; i < size; ++i) sums[i] += at[i] * weights[t];
            }
            for (int i = 0; i < size; ++i) out[x + i] = to_byte(sums[i]);
        }
    }
};

#if defined(__x86_64__) && !defined(VIVIT_PORTABLE)
#define VIVIT_AVX2 [[gnu::target("avx2")]]

/// The same in AVX2: eight products at a time, two taps of three channels or eight bytes of a row.
struct Avx2 {
    VIVIT_AVX2 static void row(const std::uint8_t* row, std::uint8_t* out, const Taps& taps) {
        for (int i = 0; i < taps.size(); ++i) {
            const std::int32_t* pairs = taps.pairs(i);
            __m256i sum = start();
            const std::uint8_t* end = row + (taps[i].first + taps[i].count) * 3;
            for (const std::uint8_t* at = row + taps[i].first * 3; at < end; at += 6, pairs += 8)
                sum = _mm256_add_epi32(sum, product(at, load(pairs)));
            const __m128i channels = add_pair(sum), words = _mm_packs_epi32(channels, channels);
            store(out + i * 3, _mm_cvtsi128_si32(_mm_packus_epi16(words, words)));
        }
    }

    VIVIT_AVX2 static void four_rows(const std::uint8_t* const* rows, std::uint8_t* const* out, const Taps& taps) {
        const std::uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3];
        for (int i = 0; i < taps.size(); ++i) {
            const std::int32_t* pairs = taps.pairs(i);
            __m256i sum0 = start(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
            const int begin = taps[i].first * 3, end = begin + taps[i].count * 3;
            for (int at = begin; at < end; at += 6, pairs += 8) {
                const __m256i weights = load(pairs);
                sum0 = _mm256_add_epi32(sum0, product(row0 + at, weights));
                sum1 = _mm256_add_epi32(sum1, product(row1 + at, weights));
                sum2 = _mm256_add_epi32(sum2, product(row2 + at, weights));
                sum3 = _mm256_add_epi32(sum3, product(row3 + at, weights));
            }
            const __m128i words01 = _mm_packs_epi32(add_pair(sum0), add_pair(sum1));
            const __m128i words23 = _mm_packs_epi32(add_pair(sum2), add_pair(sum3));
            const __m128i bytes = _mm_packus_epi16(words01, words23);
            store(out[0] + i * 3, _mm_cvtsi128_si32(bytes));
            store(out[1] + i * 3, _mm_extract_epi32(bytes, 1));
            store(out[2] + i * 3, _mm_extract_epi32(bytes, 2));
            store(out[3] + i * 3, _mm_extract_epi32(bytes, 3));
        }
    }

    VIVIT_AVX2 static void column(const std::uint8_t* rows, std::ptrdiff_t stride, int count,
                                  const std::int32_t* weights, int width, std::uint8_t* out) {
        const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // undoes the packing's halves
        int x = 0;
        for (; x + 32 <= width; x += 32) {
            __m256i sum0 = _mm256_set1_epi32(half), sum1 = sum0, sum2 = sum0, sum3 = sum0;
            const std::uint8_t* at = rows + x;
            for (int t = 0; t < count; ++t, at += stride) {
                const __m256i weight = _mm256_set1_epi32(weights[t]);
                sum0 = _mm256_add_epi32(sum0, product(at, weight));
                sum1 = _mm256_add_epi32(sum1, product(at + 8, weight));
                sum2 = _mm256_add_epi32(sum2, product(at + 16, weight));
                sum3 = _mm256_add_epi32(sum3, product(at + 24, weight));
            }
            const __m256i words01 = _mm256_packs_epi32(shift(sum0), shift(sum1));
            const __m256i words23 = _mm256_packs_epi32(shift(sum2), shift(sum3));
            const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words01, words23), in_order);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), bytes);
        }
        if (x < width) Portable::column(rows + x, stride, count, weights, width - x, out + x);
    }

private:
    VIVIT_AVX2 static __m256i start() { return _mm256_setr_epi32(half, half, half, 0, 0, 0, 0, 0); }

    VIVIT_AVX2 static __m256i load(const std::int32_t* weights) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
    }

    VIVIT_AVX2 static __m256i product(const std::uint8_t* bytes, __m256i weights) {
        const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
        return _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight), weights);
    }

    VIVIT_AVX2 static __m256i shift(__m256i sums) { return _mm256_srai_epi32(sums, precision_bits); }

    /// (r g b r' g' b' . .) to (r + r', g + g', b + b', .), as pixel values.
    VIVIT_AVX2 static __m128i add_pair(__m256i sum) {
        const __m256i second = _mm256_permutevar8x32_epi32(sum, _mm256_setr_epi32(3, 4, 5, 6, 7, 7, 7, 7));
        return _mm256_castsi256_si128(shift(_mm256_add_epi32(sum, second)));
    }

    VIVIT_AVX2 static void store(std::uint8_t* out, int pixel) { std::memcpy(out, &pixel, 3); }
};
#undef VIVIT_AVX2
#endif

/// The fastest loops that this processor runs.
inline Loops loops() {
#if defined(__x86_64__) && !defined(VIVIT_PORTABLE)
    if (__builtin_cpu_supports("avx2")) return {Avx2::row, Avx2::four_rows, Avx2::column};
#endif
    return {Portable::row, Portable::four_rows, Portable::column};
}

/// Some rows of interleaved RGB inside a larger image.
struct Image {
    const std::uint8_t* data;  ///< of the first row
    std::ptrdiff_t stride;     ///< bytes from one row to the next
    int height;
    int width;  ///< pixels
};

/// Where a pass writes its rows.
struct Target {
    std::uint8_t* data;
    std::ptrdiff_t stride;
};

/// Resize all rows of `image` along x.
///
/// Args: `padded` may be grown; it stands in for the last row, behind which there may be nothing to read.
inline void horizontal_pass(const Image& image, const Taps& taps, const Target& out, std::vector<std::uint8_t>& padded,
                            const Loops& loops) {
    const auto source = [&](int y) { return image.data + y * image.stride; };
    const auto target = [&](int y) { return out.data + y * out.stride; };
    if (taps.copies()) {
        for (int y = 0; y < image.height; ++y)
            for (int i = 0; i < taps.size(); ++i) std::memcpy(target(y) + i * 3, source(y) + taps[i].first * 3, 3);
        return;
    }
    const int last = image.height - 1;
    padded.assign(std::size_t(image.width) * 3 + 8, 0);
    std::memcpy(padded.data(), source(last), std::size_t(image.width) * 3);
    int y = 0;
    for (; y + 4 <= last; y += 4) {
        const std::uint8_t* rows[]{source(y), source(y + 1), source(y + 2), source(y + 3)};
        std::uint8_t* outs[]{target(y), target(y + 1), target(y + 2), target(y + 3)};
        loops.four_rows(rows, outs, taps);
    }
    for (; y <= last; ++y) loops.row(y == last ? padded.data() : source(y), target(y), taps);
}

/// Resize `width` pixels of each column along y; taps count from row `first_row` of the whole frame.
inline void vertical_pass(const Image& image, int first_row, const Taps& taps, const Target& out, const Loops& loops) {
    for (int i = 0; i < taps.size(); ++i) {
        const std::uint8_t* rows = image.data + (taps[i].first - first_row) * image.stride;
        if (taps.copies())
            std::memcpy(out.data + i * out.stride, rows, std::size_t(image.width) * 3);
        else
            loops.column(rows, image.stride, taps[i].count, taps.weights(i), image.width * 3,
                         out.data + i * out.stride);
    }
}

}  // namespace vivit::detail
