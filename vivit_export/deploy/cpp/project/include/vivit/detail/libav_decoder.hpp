// One pass over a video with FFmpeg's libraries (libavformat 59 or newer).
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
}

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "vivit/detail/flv.hpp"
#include "vivit/detail/libav_index.hpp"
#include "vivit/detail/matroska.hpp"
#include "vivit/detail/seekable_file.hpp"
#include "vivit/detail/text_file.hpp"
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

// FORMATS of vivit_export/runtime/clips/video/container.py: what holds all its data, so that no playlist opens another
// file.
inline constexpr const char* formats =
    "matroska,mov,avi,mpegts,mpeg,flv,live_flv,asf,asf_o,ogg,nut,mxf,gxf,rm,wtv,dv,ivf,nuv,nsv,pva,pmp,ty,dhav,ifv,lvf,"
    "yuv4mpegpipe,gif,apng,h261,h263,h264,hevc,vvc,evc,av1,obu,mpegvideo,m4v,vc1,dirac,dnxhd,apv,mjpeg,mjpeg_2000,"
    "cavsvideo,avs2,avs3,mp3,wav,w64,flac,aac,ac3,eac3,aiff,caf,ape,wv,tta,amr,au";

/// One pass over a video file.
class Decoder {
public:
    explicit Decoder(const std::filesystem::path& path) : file_(path), name_(path.string()) {
        const std::string head = file_.text(0, 512);
        if (head.empty()) throw ClipError(name_ + " is empty; give a video file");
        if (is_text(head)) throw ClipError(name_ + " is " + kind_of_text(head));
        open(path);
        stream_ = best_video();
        const AVCodecParameters* parameters = stream().codecpar;
        const AVCodec* codec = avcodec_find_decoder(parameters->codec_id);
        codec_.reset(avcodec_alloc_context3(codec));
        check(avcodec_parameters_to_context(codec_.get(), parameters));
        codec_->pkt_timebase = stream().time_base;
        check(avcodec_open2(codec_.get(), codec, nullptr));
    }

    [[nodiscard]] const AVStream& stream() const { return *format_->streams[stream_]; }

    /// Read all packets; refuse a file that ends early: with damaged ones, or before the end that its header states.
    [[nodiscard]] PacketIndex index() {
        const AvPacket packet(av_packet_alloc());
        const std::string kind = format_->iformat->name;
        PacketIndex index;
        index.codec = avcodec_get_name(stream().codecpar->codec_id);
        index.is_reordered = kind == "avi" && codec_->has_b_frames;
        index.has_index = stream().nb_frames > 0;
        double end = 0;
        for (int status; (status = av_read_frame(format_.get(), packet.get())) != AVERROR_EOF;) {
            check(status);
            if (packet->flags & AV_PKT_FLAG_CORRUPT && kind != "mpegts")  // there it only means a lost transport packet
                throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
            const bool is_shown = packet->size && !(packet->flags & AV_PKT_FLAG_DISCARD);
            if (is_shown && packet->pts != AV_NOPTS_VALUE) {
                const double tick = av_q2d(format_->streams[packet->stream_index]->time_base);
                end = std::max(end, double(packet->pts + packet->duration) * tick);
            }
            if (packet->size && packet->stream_index == stream_) {
                if (index.packets.empty()) index.begins_with_idr = holds_idr(packet->data, packet->size);
                index.packets.push_back({packet->pts, bool(packet->flags & AV_PKT_FLAG_KEY), is_shown});
            }
            av_packet_unref(packet.get());
        }
        require_whole(kind, end);
        require_one_recording(kind, index);
        return index;
    }

    /// Call `show(index, frame)` for every frame in order of presentation, until it returns false.
    ///
    /// @param skip  how many packets that have data, from the first, are left out
    void run(std::size_t skip, const std::function<bool(std::int64_t, const AVFrame&)>& show) {
        const AvPacket packet(av_packet_alloc());
        std::int64_t index = 0;
        for (bool more = true; more;) {
            const int status = av_read_frame(format_.get(), packet.get());
            if (status < 0 && status != AVERROR_EOF) check(status);
            more = status >= 0;
            const bool is_data = more && packet->stream_index == stream_ && packet->size;
            if (is_data && skip) {
                --skip;
            } else if (is_data || !more) {
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
    void open(const std::filesystem::path& path) {
        AVDictionary* options = nullptr;
        av_dict_set(&options, "format_whitelist", formats, 0);
        av_dict_set(&options, "protocol_whitelist", "file", 0);
        AVFormatContext* format = avformat_alloc_context();
        if (format) format->flags |= AVFMT_FLAG_GENPTS;  // as PyAV does
        // An absolute path, or FFmpeg reads the "a" of "a:b.mp4" as a protocol.
        const int status = avformat_open_input(&format, std::filesystem::absolute(path).c_str(), nullptr, &options);
        av_dict_free(&options);
        if (status == AVERROR(EINVAL))  // for a format that is not in the list
            throw ClipError(name_ + " is no video of a kind that is read here; convert it to MP4 or Matroska");
        check(status);
        format_.reset(format);
        check(avformat_find_stream_info(format, nullptr));
    }

    /// The best video stream that is no cover picture.
    [[nodiscard]] int best_video() const {
        const auto is_cover = [&](int i) {
            return bool(format_->streams[i]->disposition & AV_DISPOSITION_ATTACHED_PIC);
        };
        const auto type = [&](int i) { return format_->streams[i]->codecpar->codec_type; };
        const int best = av_find_best_stream(format_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
        const auto can_decode = [&](int i) { return avcodec_find_decoder(format_->streams[i]->codecpar->codec_id); };
        if (best >= 0 && !is_cover(best) && can_decode(best)) return best;
        std::set<std::string> kinds;
        bool has_cover = false, has_film = false;
        for (int i = 0; i < int(format_->nb_streams); ++i) {
            if (best >= 0 && type(i) == AVMEDIA_TYPE_VIDEO && !is_cover(i) && can_decode(i)) return i;
            has_cover = has_cover || type(i) == AVMEDIA_TYPE_VIDEO;
            has_film = has_film || (type(i) == AVMEDIA_TYPE_VIDEO && !is_cover(i));
            const char* name = av_get_media_type_string(type(i));
            if (type(i) != AVMEDIA_TYPE_VIDEO) kinds.insert(name ? name : "unknown");
        }
        if (has_film) throw ClipError(name_ + " holds video for which FFmpeg has no decoder here; convert it to H.264");
        std::string only;
        for (const std::string& kind : kinds) only += (only.empty() ? "" : " and ") + kind;
        if (has_cover) only += only.empty() ? "a cover picture" : " and a cover picture";
        throw ClipError(name_ + " has no video stream, only " + (only.empty() ? "nothing" : only) +
                        "; give a video file");
    }

    void require_whole(const std::string& kind, double end) {
        const double stated = format_->duration == AV_NOPTS_VALUE ? 0 : double(format_->duration) / AV_TIME_BASE;
        const bool states_it = kind.rfind("matroska", 0) == 0 || kind.rfind("mov", 0) == 0;  // others estimate it
        if (states_it && end < stated - 0.5 && !segment_is_whole(file_))
            throw ClipError(name_ + " is cut short: its header states " + tenths(stated) + " s but the data end at " +
                            tenths(end) + " s; copy or record it again");
    }

    /// Refuse recordings that were joined byte by byte where the container does not allow it.
    void require_one_recording(const std::string& kind, const PacketIndex& index) {
        if (kind == "flv" && is_joined_flv(file_)) throw several_recordings();
        if (kind == "mpegts" || kind == "mpeg" || kind == "avi" || kind.rfind("mov", 0) == 0) return;
        std::int64_t latest = AV_NOPTS_VALUE;  // the lowest number
        for (const auto& packet : index.packets) {
            if (!packet.is_shown || packet.pts == AV_NOPTS_VALUE) continue;
            if (packet.is_key && packet.pts < latest) throw several_recordings();
            latest = std::max(latest, packet.pts);
        }
    }

    [[nodiscard]] ClipError several_recordings() const {
        return ClipError(name_ +
                         " is several recordings in one file, of which players show only the first; "
                         "join them with a program for videos");
    }

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

    SeekableFile file_;
    std::string name_;
    AvFormat format_;
    AvCodec codec_;
    int stream_ = -1;
};

}  // namespace vivit::detail
