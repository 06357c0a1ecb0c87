// One pass over a video with FFmpeg's libraries (libavformat 59 or newer), and its frames as RGB.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "vivit/errors.hpp"

namespace vivit::detail {

/// Frees what FFmpeg frees through a pointer to the pointer.
template <auto Free>
struct FreeByAddress {
    template <typename T>
    void operator()(T* object) const {
        Free(&object);
    }
};
using AvFormat = std::unique_ptr<AVFormatContext, FreeByAddress<avformat_close_input>>;
using AvCodec = std::unique_ptr<AVCodecContext, FreeByAddress<avcodec_free_context>>;
using AvPacket = std::unique_ptr<AVPacket, FreeByAddress<av_packet_free>>;
using AvFrame = std::unique_ptr<AVFrame, FreeByAddress<av_frame_free>>;

struct FreeSws {
    void operator()(SwsContext* context) const { sws_freeContext(context); }
};

/// One pass over a video file.
class Decoder {
public:
    explicit Decoder(const std::filesystem::path& path) : name_(path.string()) {
        AVFormatContext* format = nullptr;
        // An absolute path, or FFmpeg reads the "a" of "a:b.mp4" as a protocol.
        check(avformat_open_input(&format, std::filesystem::absolute(path).c_str(), nullptr, nullptr));
        format_.reset(format);
        if (std::string(format->iformat->name) == "tty")  // FFmpeg renders any text file as a terminal session
            throw ClipError(name_ + " is a text file; give a video file");
        check(avformat_find_stream_info(format, nullptr));
        const AVCodec* codec = nullptr;
        stream_ = av_find_best_stream(format, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
        if (stream_ < 0) throw ClipError(name_ + " has no video stream; give a video file");
        codec_.reset(avcodec_alloc_context3(codec));
        check(avcodec_parameters_to_context(codec_.get(), format->streams[stream_]->codecpar));
        check(avcodec_open2(codec_.get(), codec, nullptr));
    }

    /// Refuse a file that ends early, by its packets alone: damaged ones, or fewer than the header states.
    void require_whole() {
        const AvPacket packet(av_packet_alloc());
        const std::string kind = format_->iformat->name;
        double end = 0;
        for (int status; (status = av_read_frame(format_.get(), packet.get())) != AVERROR_EOF;) {
            check(status);
            if (packet->flags & AV_PKT_FLAG_CORRUPT && kind != "mpegts")  // there it only means a lost transport packet
                throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
            if (packet->size && !(packet->flags & AV_PKT_FLAG_DISCARD) && packet->pts != AV_NOPTS_VALUE) {
                const double tick = av_q2d(format_->streams[packet->stream_index]->time_base);
                end = std::max(end, double(packet->pts + packet->duration) * tick);
            }
            av_packet_unref(packet.get());
        }
        const double stated = format_->duration == AV_NOPTS_VALUE ? 0 : double(format_->duration) / AV_TIME_BASE;
        const bool states_it = kind.rfind("matroska", 0) == 0 || kind.rfind("mov", 0) == 0;  // others estimate it
        if (states_it && end < stated - 0.5)
            throw ClipError(name_ + " is cut short: its header states " + tenths(stated) + " s but the data end at " +
                            tenths(end) + " s; copy or record it again");
    }

    /// Call `show(index, frame)` for every frame in order of presentation, until it returns false.
    void run(const std::function<bool(std::int64_t, const AVFrame&)>& show) {
        const AvPacket packet(av_packet_alloc());
        std::int64_t index = 0;
        for (bool more = true; more;) {
            const int status = av_read_frame(format_.get(), packet.get());
            if (status < 0 && status != AVERROR_EOF) check(status);
            more = status >= 0;
            if (!more || packet->stream_index == stream_) {
                check(avcodec_send_packet(codec_.get(), more ? packet.get() : nullptr));
                if (!drain(index, show)) return;
            }
            if (more) av_packet_unref(packet.get());
        }
    }

    void check(int status) const {
        if (status >= 0) return;
        std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
        av_strerror(status, text.data(), text.size());
        throw ClipError(name_ + " cannot be read as a video (" + text.data() +
                        "): it is not one, is cut short or is damaged; check that it plays");
    }

private:
    static std::string tenths(double seconds) {
        std::array<char, 32> text{};
        std::snprintf(text.data(), text.size(), "%.1f", seconds);
        return text.data();
    }

    bool drain(std::int64_t& index, const std::function<bool(std::int64_t, const AVFrame&)>& show) {
        const AvFrame frame(av_frame_alloc());
        for (;;) {
            const int status = avcodec_receive_frame(codec_.get(), frame.get());
            if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) return true;
            check(status);
            if (!show(index++, *frame)) return false;
        }
    }

    std::string name_;
    AvFormat format_;
    AvCodec codec_;
    int stream_ = -1;
};

/// Frames to RGB; one for a whole video, whose frames must have one size.
class ToRgb {
public:
    explicit ToRgb(std::string name) : name_(std::move(name)) {}

    void operator()(const AVFrame& frame, std::uint8_t* out) {
        const auto source = AVPixelFormat(frame.format);
        sws_.reset(sws_getCachedContext(sws_.release(), frame.width, frame.height, source, frame.width, frame.height,
                                        AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr, nullptr));
        if (!sws_) throw ClipError(name_ + " has a pixel format that cannot become RGB");
        const int* matrix = sws_getCoefficients(frame.colorspace);
        sws_setColorspaceDetails(sws_.get(), matrix, frame.color_range == AVCOL_RANGE_JPEG,
                                 sws_getCoefficients(SWS_CS_DEFAULT), 0, 0, 1 << 16, 1 << 16);
        // swscale may write beyond the end of a row, so give it a buffer of its own with the alignment it prefers.
        std::array<std::uint8_t*, 4> planes{};
        std::array<int, 4> strides{};
        if (av_image_alloc(planes.data(), strides.data(), frame.width, frame.height, AV_PIX_FMT_RGB24, 64) < 0)
            throw ClipError(name_ + " has frames for which there is no memory");
        const std::unique_ptr<std::uint8_t, void (*)(void*)> owner(planes[0], av_free);
        sws_scale(sws_.get(), frame.data, frame.linesize, 0, frame.height, planes.data(), strides.data());
        for (int y = 0; y < frame.height; ++y)
            std::copy_n(planes[0] + std::ptrdiff_t(y) * strides[0], frame.width * 3,
                        out + std::ptrdiff_t(y) * frame.width * 3);
    }

private:
    std::string name_;
    std::unique_ptr<SwsContext, FreeSws> sws_;
};

}  // namespace vivit::detail
