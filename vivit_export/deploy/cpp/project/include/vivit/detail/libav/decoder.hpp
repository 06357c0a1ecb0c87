// The decoder of a video with FFmpeg's libraries, and one pass over all frames.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavcodec/avcodec.h>
}

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "vivit/detail/libav/container.hpp"
#include "vivit/detail/limits.hpp"

namespace vivit::detail {

/// Whether the decoder reports errors in a frame.
[[nodiscard]] inline bool is_corrupt(const AVFrame& frame) {
    return frame.decode_error_flags || frame.flags & AV_FRAME_FLAG_CORRUPT;
}

/// Whether a frame was made of two fields.
[[nodiscard]] inline bool is_interlaced(const AVFrame& frame) {
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(58, 7, 100)
    return frame.flags & AV_FRAME_FLAG_INTERLACED;
#else
    return frame.interlaced_frame;
#endif
}

/// Pixels up to which a second thread saves no time, and costs more of the processors' (share_among in
/// runtime/clips/video/container.py).
inline constexpr std::int64_t small_frame = 640 * 360;

/// The decoder of the video in a container; it must not outlive that.
class Decoder {
public:
    /// @param threads  0: as many as there are cores
    Decoder(const Container& container, int threads) : container_(container) {
        const AVStream& video = container.video();
        const AVCodec* codec = avcodec_find_decoder(video.codecpar->codec_id);
        codec_.reset(avcodec_alloc_context3(codec));
        container.check(avcodec_parameters_to_context(codec_.get(), video.codecpar));
        codec_->pkt_timebase = video.time_base;
        codec_->max_pixels = most_pixels() + alignment_pixels;  // a later frame may be larger
        const std::int64_t size = pixels();
        codec_->thread_count = size > 0 && size <= small_frame ? 1 : threads;
        codec_->thread_type = FF_THREAD_SLICE | (takes_one_frame_at_a_time(container.codec()) ? 0 : FF_THREAD_FRAME);
        container.check(avcodec_open2(codec_.get(), codec, nullptr));
    }

    /// Give it a packet, or nullptr after the last one.
    ///
    /// @throws LibavError  it fails
    void send(const AVPacket* packet) { container_.check(avcodec_send_packet(codec_.get(), packet)); }

    /// Take a frame; false if it needs another packet first.
    ///
    /// @throws LibavError  it fails
    bool receive(AVFrame& frame) {
        const int status = avcodec_receive_frame(codec_.get(), &frame);
        if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) return false;
        container_.check(status);
        return true;
    }

    /// How many pixels a frame has, as far as it is known.
    [[nodiscard]] std::int64_t pixels() const noexcept { return std::int64_t(codec_->width) * codec_->height; }

    /// Forget what came before a seek.
    void flush() { avcodec_flush_buffers(codec_.get()); }

    /// Whether to leave out pictures to which no other refers.
    void skip_unreferenced(bool skip) { codec_->skip_frame = skip ? AVDISCARD_NONREF : AVDISCARD_DEFAULT; }

private:
    /// One decoder: with a thread for each frame, about one reading in fifty shows pictures of another place.
    static bool takes_one_frame_at_a_time(const std::string& codec) {
        return codec == "theora" || codec == "vp3" || codec == "vp4";
    }

    const Container& container_;
    AvCodec codec_;
};

/// All frames of a video in order of presentation, decoded one after the other.
class DecodedFrames {
public:
    /// @param skip     how many packets that have data, from the first, are left out
    /// @param threads  of the decoder; 0: as many as there are cores
    DecodedFrames(const std::filesystem::path& path, std::size_t skip, int threads) : container_(path), skip_(skip) {
        decode([&] { decoder_.emplace(container_, threads); });
        knows_size_ = decoder_->pixels() > 0;
    }

    /// The next frame, valid until the next call, or nullptr after the last one.
    [[nodiscard]] const AVFrame* next() {
        bool is_there = false;
        while (decode([&] { is_there = decoder_->receive(*frame_); }), !is_there) {
            if (is_drained_) return nullptr;
            send();
        }
        if (!knows_size_) container_.require_pixels(decoder_->pixels(), false);
        knows_size_ = true;
        return frame_.get();
    }

private:
    void send() {
        while (container_.read(*packet_)) {
            if (!container_.is_of_video(*packet_)) continue;
            if (!skip_) return decode([&] { decoder_->send(packet_.get()); });
            --skip_;
        }
        is_drained_ = true;
        decode([&] { decoder_->send(nullptr); });
    }

    /// Do something with the decoder; if it fails because the frames are too large, say so.
    template <typename Step>
    void decode(const Step& step) const {
        try {
            step();
        } catch (const LibavError& e) {
            container_.require_pixels_despite(e, decoder_ ? decoder_->pixels() : 0);
            throw;
        }
    }

    Container container_;
    std::optional<Decoder> decoder_;
    std::size_t skip_;
    AvPacket packet_{av_packet_alloc()};
    AvFrame frame_{av_frame_alloc()};
    bool is_drained_ = false, knows_size_ = false;
};

}  // namespace vivit::detail
