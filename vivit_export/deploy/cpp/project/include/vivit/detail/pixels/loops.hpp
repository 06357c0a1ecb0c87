// The inner loops of the resize. On x86 there are two versions: AVX2 is used if the processor has it, which is checked
// at run time. The results are bit-equal.
#pragma once

#if !defined(__GNUC__)
#error "vivit needs GCC or Clang"
#endif

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "vivit/detail/pixels/taps.hpp"

namespace vivit::detail {

[[nodiscard]] inline std::uint8_t to_byte(std::int32_t sum) {
    return std::uint8_t(std::clamp(sum >> precision_bits, 0, 255));
}

/// The inner loops. Those along x read up to 5 bytes beyond the last pixel that a row needs.
struct Loops {
    /// Resize one row, or four, of interleaved RGB along x.
    void (*row)(const std::uint8_t* row, std::uint8_t* out, const Taps& taps);
    void (*four_rows)(const std::uint8_t* const* rows, std::uint8_t* const* out, const Taps& taps);
    /// One row of a resize along y: `width` bytes from `count` rows that are `stride` bytes apart.
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

#ifdef __x86_64__
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

/// For tests: makes `loops` skip instructions that only some processors have. This is a variable and not a macro,
/// because a macro would give `loops` a different body in each object.
inline std::atomic<bool> portable_loops_only{false};

/// The fastest loops that this processor runs.
[[nodiscard]] inline Loops loops() noexcept {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && !portable_loops_only) return {Avx2::row, Avx2::four_rows, Avx2::column};
#endif
    return {Portable::row, Portable::four_rows, Portable::column};
}

}  // namespace vivit::detail
