// Reads the first golden clip of a bundle and the eager model's results for all of them, as first_golden_clip of
// vivit_export/runtime/drift/check.py does: the header is read strictly, and what is hashed is what is returned.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/limits.hpp"
#include "vivit/detail/manifest/file_bytes.hpp"
#include "vivit/detail/manifest/json.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/detail/manifest/sha256.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

inline constexpr const char* golden_name = "golden.safetensors";

/// The first golden clip, and the results for all.
struct Golden {
    std::vector<std::uint8_t> clip;  ///< as Session::run takes it
    std::size_t count = 0;           ///< of the results
    Outputs results;
};

/// What the header says of a tensor.
struct TensorHeader {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> offsets;  ///< first byte and the one after the last, from the end of the header
};

template <>
struct As<TensorHeader> {
    static std::string words() { return "a JSON object"; }
    static TensorHeader read(const json& value, const std::string& where) {
        const Object object(value, where, {"dtype", "shape", "data_offsets"});
        object.require({"dtype", "shape", "data_offsets"});
        return {object.get<std::string>("dtype"), object.get<std::vector<std::int64_t>>("shape"),
                object.get<std::vector<std::int64_t>>("data_offsets")};
    }
};

/// Reads one file of golden clips.
class GoldenReader {
public:
    /// @throws BundleError  its header is not that of golden clips of this model
    explicit GoldenReader(const Bundle& bundle)
        : bundle_(bundle), path_(bundle.path() / golden_name), file_(path_), size_(std::int64_t(file_.size())) {
        try {
            read_header();
        } catch (const json::exception& e) {
            refuse(e.what());
        } catch (const InputError& e) {
            if (dynamic_cast<const BundleError*>(&e)) throw;
            refuse(e.what());
        }
        const Contract& contract = bundle.contract();
        const Clip& clip = contract.clip;
        std::vector<int> shape{clip.num_frames, clip.height, clip.width, 3};
        if (contract.io.mode == InputMode::frames) shape = contract.io.input.clip_shape;
        take("frames", "U8", shape);
        for (const Tensor& output : contract.io.outputs) take(output.name, "F32", output.clip_shape);
    }

    /// @throws BundleError  the file was altered
    [[nodiscard]] Golden read() {
        Sha256 digest;
        digest.add(header_.data(), header_.size());
        std::vector<std::vector<char>> found(parts_.size());
        std::vector<char> piece(1 << 20);
        std::int64_t at = std::int64_t(header_.size());
        while (const std::size_t count = file_.read(piece.data(), piece.size())) {
            digest.add(piece.data(), count);
            for (std::size_t i = 0; i < parts_.size(); ++i) {
                const std::int64_t first = std::max<std::int64_t>(parts_[i].first - at, 0);
                const std::int64_t after = std::min<std::int64_t>(parts_[i].second - at, std::int64_t(count));
                if (first < after) found[i].insert(found[i].end(), piece.begin() + first, piece.begin() + after);
            }
            at += std::int64_t(count);
        }
        if (at != size_ || digest.hex() != bundle_.files().at(golden_name)) throw altered(path_);
        Golden golden;
        golden.count = std::size_t(rows_);
        golden.clip.assign(found[0].begin(), found[0].end());
        for (std::size_t i = 1; i < found.size(); ++i) {
            std::vector<float> values(found[i].size() / sizeof(float));
            std::memcpy(values.data(), found[i].data(), found[i].size());
            const std::string& name = bundle_.contract().io.outputs[i - 1].name;
            if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
                throw BundleError(path_.string() + " has " + name +
                                  " that are not finite numbers; export the bundle again");
            golden.results[name] = std::move(values);
        }
        return golden;
    }

private:
    [[noreturn]] void refuse(const std::string& why) const {
        throw BundleError(path_.string() + " is not a safetensors file of this kind (" + why +
                          "); export the bundle again");
    }

    void read_header() {
        header_.resize(8);
        std::uint64_t length = 0;
        if (file_.read(header_.data(), 8) != 8) refuse("it ends within its header");
        std::memcpy(&length, header_.data(), 8);
        if (length < 2 || length > (1 << 20) || std::int64_t(length) > size_ - 8)
            refuse("its header would have " + std::to_string(length) + " bytes");
        header_.resize(8 + std::size_t(length));
        if (file_.read(header_.data() + 8, std::size_t(length)) != length) refuse("it ends within its header");
        told_ = parse_json(std::string(header_.begin() + 8, header_.end()));
        if (!told_.is_object()) refuse("its header is not an object");
    }

    /// Note where the first row of the frames is, or all rows of an output.
    void take(const std::string& name, const std::string& dtype, const std::vector<int>& shape) {
        if (!told_.contains(name)) throw BundleError(path_.string() + " lacks '" + name + "'; export the bundle again");
        const TensorHeader found = read_tensor(name);
        std::int64_t row = dtype == "U8" ? 1 : 4;
        for (const int side : shape) row *= side;
        const std::int64_t rows = found.shape.empty() ? 0 : found.shape[0];
        const bool same = found.dtype == dtype && found.shape.size() == shape.size() + 1 &&
                          std::equal(shape.begin(), shape.end(), found.shape.begin() + 1);
        if (!same || rows < 1 || rows > most_golden_clips)
            throw BundleError(path_.string() + " has " + name + " " + found.dtype + " " + list(found.shape) +
                              ", but this model has " + dtype + " of 1 to " + std::to_string(most_golden_clips) +
                              " times " + list(shape) + "; export the bundle again");
        if (rows_ && rows != rows_)
            throw BundleError(path_.string() + " has more clips than results, or fewer; export the bundle again");
        rows_ = rows;
        const std::int64_t start = std::int64_t(header_.size()), room = size_ - start;
        const bool fits = found.offsets.size() == 2 && found.offsets[0] >= 0 && found.offsets[1] <= room &&
                          found.offsets[1] - found.offsets[0] == rows * row;
        if (!fits) refuse("'" + name + "' has another size than its shape");
        const std::int64_t first = start + found.offsets[0];
        parts_.emplace_back(first, first + (dtype == "U8" ? row : rows * row));
    }

    [[nodiscard]] TensorHeader read_tensor(const std::string& name) const {
        try {
            return As<TensorHeader>::read(told_[name], "'" + name + "'");
        } catch (const InputError& e) {
            refuse(e.what());
        }
    }

    template <typename Sides>
    [[nodiscard]] static std::string list(const Sides& sides) {
        std::string text;
        for (const auto side : sides) text += (text.empty() ? "" : ", ") + std::to_string(side);
        return "[" + text + "]";
    }

    const Bundle& bundle_;
    std::filesystem::path path_;
    OpenFile file_;
    std::int64_t size_;
    std::vector<char> header_;
    json told_;
    std::int64_t rows_ = 0;
    std::vector<std::pair<std::int64_t, std::int64_t>> parts_;  ///< of the file: the clip, then each output
};

}  // namespace vivit::detail
