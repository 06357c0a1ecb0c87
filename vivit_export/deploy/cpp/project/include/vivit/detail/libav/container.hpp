// A video file opened with FFmpeg's libraries (libavformat 59 or newer), and the packets in it, as
// vivit_export/runtime/clips/video/container.py opens it.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
}

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/files/seekable_file.hpp"
#include "vivit/detail/files/text_file.hpp"
#include "vivit/detail/libav/nal.hpp"
#include "vivit/detail/limits.hpp"
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

/// FFmpeg fails.
class LibavError : public ClipError {
public:
    LibavError(const std::string& name, int status) : LibavError(name, status, text_of(status)) {}

    [[nodiscard]] int status() const noexcept { return status_; }

    /// What FFmpeg calls it.
    [[nodiscard]] const std::string& cause() const noexcept { return cause_; }

private:
    LibavError(const std::string& name, int status, std::string cause)
        : ClipError(name + " cannot be read as a video (" + cause +
                    "): it is not one, is cut short or is damaged; check that it plays"),
          status_(status),
          cause_(std::move(cause)) {}

    static std::string text_of(int status) {
        std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
        av_strerror(status, text.data(), text.size());
        return text.data();
    }

    int status_;
    std::string cause_;
};

/// An open video file: its best video stream, and the packets of all streams.
class Container {
public:
    /// @throws ClipError  no such file, no container that is read, or none with a video
    explicit Container(const std::filesystem::path& path) : path_(path), file_(path), name_(path.string()) {
        const std::string head = file_.text(0, 512);
        if (head.empty()) throw ClipError(name_ + " is empty; give a video file");
        if (is_text(head)) throw ClipError(name_ + " is " + kind_of_text(head));
        open();
        video_ = best_video();
        require_pixels(std::int64_t(video().codecpar->width) * video().codecpar->height, true);
    }
    Container(const Container&) = delete;  // its decoder refers to it
    Container& operator=(const Container&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }  ///< in errors
    [[nodiscard]] SeekableFile& file() noexcept { return file_; }
    [[nodiscard]] AVFormatContext& format() const noexcept { return *format_; }
    [[nodiscard]] std::string kind() const { return format_->iformat->name; }  ///< FFmpeg's name
    [[nodiscard]] AVStream& video() const { return *format_->streams[video_]; }
    [[nodiscard]] std::string codec() const { return avcodec_get_name(video().codecpar->codec_id); }
    [[nodiscard]] Bytes extradata() const {
        return {video().codecpar->extradata, std::size_t(video().codecpar->extradata_size)};
    }

    /// Read the next packet of any stream; false at the end.
    bool read(AVPacket& packet) {
        av_packet_unref(&packet);
        const int status = av_read_frame(format_.get(), &packet);
        if (status != AVERROR_EOF) check(status);
        return status >= 0;
    }

    /// Whether a packet belongs to the video, and has data.
    [[nodiscard]] bool is_of_video(const AVPacket& packet) const {
        return packet.stream_index == video_ && packet.size;
    }

    /// Continue at the last key frame of the video that its index has at or before a time in ticks.
    void seek(std::int64_t tick) { check(av_seek_frame(format_.get(), video_, tick, AVSEEK_FLAG_BACKWARD)); }

    /// @param may_lack_size  FFmpeg looks for a key frame for 5 s; before one, no size is known
    /// @throws ClipError  the frames have no size, or are larger than is allowed
    void require_pixels(std::int64_t pixels, bool may_lack_size) const {
        // Of a codec that the limit kept from opening, the size is not known.
        if (pixels > most_pixels() || (pixels <= 0 && !may_lack_size)) throw ClipError(why_too_large(name_));
    }

    /// @throws ClipError  a decoder failed because the frames are too large; some decoders then know no size
    void require_pixels_despite(const LibavError& error, std::int64_t pixels) const {
        require_pixels(pixels, error.status() != AVERROR(EINVAL));
    }

    /// @throws LibavError  a status of FFmpeg's that is below zero
    void check(int status) const {
        if (status < 0) throw LibavError(name_, status);
    }

private:
    void open() {
        AVDictionary* options = nullptr;
        av_dict_set(&options, "format_whitelist", formats, 0);
        av_dict_set(&options, "protocol_whitelist", "file", 0);
        AVFormatContext* format = avformat_alloc_context();
        if (format) format->flags |= AVFMT_FLAG_GENPTS;  // as PyAV does
        // An absolute path, or FFmpeg reads the "a" of "a:b.mp4" as a protocol.
        const int status = avformat_open_input(&format, std::filesystem::absolute(path_).c_str(), nullptr, &options);
        av_dict_free(&options);
        if (status == AVERROR(EINVAL))  // for a format that is not in the list
            throw ClipError(name_ + " is not a video of a kind that is read here; convert it to MP4 or Matroska");
        check(status);
        format_.reset(format);
        find_stream_info();
    }

    /// Let FFmpeg look into the file, but at no frame that is too large.
    void find_stream_info() {
        std::vector<AVDictionary*> options(format_->nb_streams, nullptr);
        const std::size_t count = options.size();  // streams that appear meanwhile have none
        const std::string limit = std::to_string(most_pixels() + alignment_pixels);
        for (AVDictionary*& one : options) av_dict_set(&one, "max_pixels", limit.c_str(), 0);
        const int status = avformat_find_stream_info(format_.get(), count ? options.data() : nullptr);
        for (AVDictionary*& one : options) av_dict_free(&one);
        check(status);
    }

    /// The best video stream that is not a cover picture.
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

    std::filesystem::path path_;
    SeekableFile file_;
    std::string name_;
    AvFormat format_;
    int video_ = -1;
};

}  // namespace vivit::detail
