// Upright RGB of a decoded frame, as vivit_export/runtime/clips/video/picture.py makes it.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "vivit/contract.hpp"
#include "vivit/detail/libav/decoder.hpp"
#include "vivit/detail/libav/orientation.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

struct FreeSws {
    void operator()(SwsContext* context) const { sws_freeContext(context); }
};

/// The name of a color matrix (ISO/IEC 23091-2) from which there is no conversion, or nullptr.
[[nodiscard]] inline const char* without_conversion(int matrix) {
    switch (matrix) {
        case 8:
            return "YCgCo";
        case 10:
            return "BT.2020 with constant luminance";
        case 11:
            return "SMPTE ST 2085";
        case 12:
            return "derived from the primaries, luminance not constant";
        case 13:
            return "derived from the primaries, constant luminance";
        case 14:
            return "ICtCp";
        case 15:
            return "IPT-C2";
        case 16:
            return "YCgCo-Re";
        case 17:
            return "YCgCo-Ro";
        default:
            return nullptr;
    }
}

/// The display matrix of a stream, or nullptr.
[[nodiscard]] inline const std::int32_t* display_matrix(const AVStream& stream) {
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData* data = av_packet_side_data_get(
        stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    return data ? reinterpret_cast<const std::int32_t*>(data->data) : nullptr;
#else
    return reinterpret_cast<const std::int32_t*>(av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr));
#endif
}

/// Frames of one video to upright RGB.
class ToUprightRgb {
public:
    /// @param name    of the video, in errors
    /// @param stream  says how frames are turned that do not say it themselves
    ToUprightRgb(std::string name, const AVStream& stream) : name_(std::move(name)) {
        if (const std::int32_t* matrix = display_matrix(stream)) std::copy_n(matrix, 9, matrix_.emplace().begin());
    }

    /// (height, width) of a frame when it is upright, in pixels.
    ///
    /// @throws ClipError  it is turned by something else than quarter turns
    [[nodiscard]] Size size(const AVFrame& frame) const {
        return orientation(frame).transpose ? Size{frame.width, frame.height} : Size{frame.height, frame.width};
    }

    /// @throws ClipError  it cannot become RGB
    void require_conversion(const AVFrame& frame) const {
        const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(AVPixelFormat(frame.format));
        const char* matrix = without_conversion(frame.colorspace);
        if (matrix && format && !(format->flags & AV_PIX_FMT_FLAG_RGB))
            throw ClipError(name_ + " declares the color matrix " + std::to_string(int(frame.colorspace)) + " (" +
                            matrix + "), from which there is no conversion to RGB; convert the video to BT.709");
    }

    /// Write one frame, uint8 (h, w, 3), to `out`.
    void operator()(const AVFrame& frame, std::uint8_t* out) {
        // swscale may write beyond the end of a row, so give it a buffer of its own with the alignment it prefers.
        std::array<std::uint8_t*, 4> planes{};
        std::array<int, 4> strides{};
        if (av_image_alloc(planes.data(), strides.data(), frame.width, frame.height, AV_PIX_FMT_RGB24, 64) < 0)
            throw ClipError(name_ + " has frames for which there is no memory");
        const std::unique_ptr<std::uint8_t, void (*)(void*)> owner(planes[0], av_free);
        const int step = is_interlaced(frame) ? 2 : 1;  // the rows of each field have chroma of their own
        for (int first = 0; first < step; ++first) convert(frame, first, step, planes[0], strides[0]);
        orientation(frame).copy(planes[0], strides[0], frame.height, frame.width, out);
    }

private:
    /// Every `step`-th row from `first` on, of chroma as of luma.
    void convert(const AVFrame& frame, int first, int step, std::uint8_t* out, int stride) {
        const auto source = AVPixelFormat(frame.format);
        const int height = (frame.height - first + step - 1) / step;
        sws_.reset(sws_getCachedContext(sws_.release(), frame.width, height, source, frame.width, height,
                                        AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr, nullptr));
        if (!sws_) throw ClipError(name_ + " has a pixel format that cannot become RGB");
        const int* matrix = sws_getCoefficients(frame.colorspace);
        sws_setColorspaceDetails(sws_.get(), matrix, frame.color_range == AVCOL_RANGE_JPEG,
                                 sws_getCoefficients(SWS_CS_DEFAULT), 0, 0, 1 << 16, 1 << 16);
        std::array<const std::uint8_t*, 4> planes{};
        std::array<int, 4> strides{};
        const bool has_palette = av_pix_fmt_desc_get(source)->flags & AV_PIX_FMT_FLAG_PAL;
        for (std::size_t i = 0; i < planes.size(); ++i) {
            const bool is_rows = frame.data[i] && !(has_palette && i == 1);
            planes[i] = is_rows ? frame.data[i] + std::ptrdiff_t(first) * frame.linesize[i] : frame.data[i];
            strides[i] = frame.linesize[i] * step;
        }
        out += std::ptrdiff_t(first) * stride;
        stride *= step;
        sws_scale(sws_.get(), planes.data(), strides.data(), 0, height, &out, &stride);
    }

    [[nodiscard]] Orientation orientation(const AVFrame& frame) const {
        const AVFrameSideData* own = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
        const std::int32_t* matrix = own       ? reinterpret_cast<const std::int32_t*>(own->data)
                                     : matrix_ ? matrix_->data()
                                               : nullptr;
        const auto found = matrix ? orientation_of(matrix) : Orientation{};
        if (!found)
            throw ClipError(name_ + " is turned by " + std::to_string(*angle_of(matrix)) +
                            " degrees clockwise; only quarter turns are supported");
        return *found;
    }

    std::string name_;
    std::optional<std::array<std::int32_t, 9>> matrix_;  ///< of the stream
    std::unique_ptr<SwsContext, FreeSws> sws_;
};

}  // namespace vivit::detail
