// How far the result for one clip is from the reference, as compare of vivit_export/runtime/drift/metrics.py has it,
// and which limits of a gate that exceeds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/self_test/golden.hpp"

namespace vivit::detail {

/// Limits or figures by the name of their metric.
using Metrics = std::map<std::string, double>;

[[nodiscard]] inline bool is_at_least(const std::string& metric) {
    return metric == "cosine" || metric == "embedding_cosine";
}

/// The cosine of two vectors; a zero vector agrees with itself alone.
[[nodiscard]] inline double cosine(const float* a, const float* b, std::size_t count) {
    double product = 0, left = 0, right = 0;
    bool same = true;
    for (std::size_t i = 0; i < count; ++i) {
        product += double(a[i]) * double(b[i]), left += double(a[i]) * double(a[i]),
            right += double(b[i]) * double(b[i]);
        same = same && a[i] == b[i];
    }
    const double norms = std::sqrt(left) * std::sqrt(right);
    return same ? 1 : norms == 0 ? 0 : product / norms;
}

/// Logarithms of the softmax.
[[nodiscard]] inline std::vector<double> log_softmax(const float* values, std::size_t count) {
    const double largest = double(*std::max_element(values, values + count));
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += std::exp(double(values[i]) - largest);
    std::vector<double> logs(count);
    for (std::size_t i = 0; i < count; ++i) logs[i] = double(values[i]) - largest - std::log(sum);
    return logs;
}

/// log(1 + exp(x)) without overflow.
[[nodiscard]] inline double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

/// Compares logits.
///
/// @param reference   logits of all golden clips, the first `count` of them of the clip
/// @param tie_margin  the reference's margin, relative to the range, below which a flip is near
class LogitFigures {
public:
    LogitFigures(const std::vector<float>& reference, const std::vector<float>& found, double tie_margin)
        : ref_(reference.data()), out_(found.data()), count_(found.size()) {
        const auto [least, most] = std::minmax_element(reference.begin(), reference.end());
        scale_ = double(*most) - double(*least);
        if (scale_ == 0) scale_ = std::fabs(double(*most));
        if (scale_ == 0) scale_ = 1;
        tie_ = tie_margin * scale_;
    }

    void add_to(Metrics& figures, Task task) const {
        double worst = 0;
        for (std::size_t i = 0; i < count_; ++i) {
            const double difference = std::fabs(double(out_[i]) - double(ref_[i]));
            worst = std::isnan(difference) || difference > worst ? difference : worst;
            if (std::isnan(worst)) break;
        }
        figures["max_abs"] = worst, figures["max"] = worst / scale_;
        if (count_ > 1) figures["cosine"] = cosine(ref_, out_, count_);
        if (task == Task::single_label_classification) add_best(figures);
        if (task == Task::multi_label_classification) add_labels(figures);
    }

private:
    void add_best(Metrics& figures) const {
        std::vector<double> sorted(ref_, ref_ + count_);
        std::sort(sorted.rbegin(), sorted.rend());
        const double margin = count_ > 1 ? sorted[0] - sorted[1] : std::numeric_limits<double>::infinity();
        const bool flipped =
            std::max_element(ref_, ref_ + count_) - ref_ != std::max_element(out_, out_ + count_) - out_;
        figures["near_flips"] = flipped && margin <= tie_, figures["clear_flips"] = flipped && margin > tie_;
        const std::vector<double> p = log_softmax(ref_, count_), q = log_softmax(out_, count_);
        double kl = 0;
        for (std::size_t i = 0; i < count_; ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
        figures["kl"] = std::isnan(kl) ? kl : std::max(kl, 0.0);
    }

    void add_labels(Metrics& figures) const {
        double kl = 0, near = 0, clear = 0;
        for (std::size_t i = 0; i < count_; ++i) {
            const double ref = double(ref_[i]), out = double(out_[i]), p = std::exp(-softplus(-ref));
            kl += p * (softplus(-out) - softplus(-ref)) + (1 - p) * (softplus(out) - softplus(ref));
            if ((ref >= 0) != (out >= 0)) (std::fabs(ref) <= tie_ / 2 ? near : clear) += 1;
        }
        figures["kl"] = std::isnan(kl) ? kl : std::max(kl, 0.0), figures["near_flips"] = near;
        figures["clear_flips"] = clear;
    }

    const float* ref_;
    const float* out_;
    std::size_t count_;
    double scale_ = 1, tie_ = 0;
};

/// The figures of the first golden clip.
[[nodiscard]] inline Metrics measure(const Golden& golden, const Outputs& found, Task task, const Metrics& limits) {
    Metrics figures{{"nonfinite", 0}};
    for (const auto& [name, values] : found) {
        for (const float value : values) figures["nonfinite"] += std::isfinite(value) ? 0 : 1;
        const std::vector<float>& reference = golden.results.at(name);
        if (name == "embedding")
            figures["embedding_cosine"] = cosine(reference.data(), values.data(), values.size());
        else if (name == "logits")
            LogitFigures(reference, values, limits.count("max") ? 2 * limits.at("max") : 0).add_to(figures, task);
    }
    return figures;
}

[[nodiscard]] inline std::string number(const char* form, double value) {
    if (std::isnan(value)) return "nan";
    std::string text(64, '\0');
    text.resize(std::size_t(std::snprintf(text.data(), text.size(), form, value)));
    return text;
}

/// A phrase for each limit that is exceeded, joined; limits on what was not measured are passed over.
[[nodiscard]] inline std::string violations(const Metrics& limits, const Metrics& figures) {
    std::string text;
    for (const auto& [name, limit] : limits) {
        const auto figure = figures.find(name);
        if (figure == figures.end()) continue;
        const bool at_least = is_at_least(name);
        if (at_least ? figure->second >= limit : figure->second <= limit) continue;
        text += (text.empty() ? "" : "; ") + name + " " + number("%.6g", figure->second) + " is " +
                (at_least ? "below " : "above ") + number("%g", limit);
    }
    return text;
}

}  // namespace vivit::detail
