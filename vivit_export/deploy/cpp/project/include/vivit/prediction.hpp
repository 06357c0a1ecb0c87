// The result of a session.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "vivit/errors.hpp"

namespace vivit {

/// The model's prediction for one clip.
struct Prediction {
    std::vector<float> logits;        ///< (num_labels,), empty for a bundle without that output
    std::vector<float> embedding;     ///< (hidden,), empty for a bundle without that output
    std::vector<std::string> labels;  ///< (num_labels,), by index of the logits
    double preprocess_ms = 0;         ///< resize and crop, in milliseconds
    double inference_ms = 0;          ///< everything after it, in milliseconds

    /// Softmax of the logits, computed in double.
    ///
    /// @return (num_labels,), each in [0, 1]
    /// @throws UsageError  there are no logits
    [[nodiscard]] std::vector<float> probabilities() const {
        if (logits.empty())
            throw UsageError("this bundle has an embedding but no logits; export it with --outputs logits,embedding");
        const float largest = *std::max_element(logits.begin(), logits.end());
        std::vector<double> powers;
        powers.reserve(logits.size());
        for (const float logit : logits) powers.push_back(std::exp(double(logit) - double(largest)));
        const double sum = std::accumulate(powers.begin(), powers.end(), 0.0);
        std::vector<float> chances;
        chances.reserve(powers.size());
        for (const double power : powers) chances.push_back(float(power / sum));
        return chances;
    }

    /// The most probable labels, best first, each with its probability in [0, 1].
    ///
    /// @param k  how many; all if there are fewer
    /// @throws UsageError  there are no logits
    [[nodiscard]] std::vector<std::pair<std::string, float>> top(int k = 5) const {
        const std::vector<float> chances = probabilities();
        std::vector<std::size_t> order(chances.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return chances[a] > chances[b]; });
        std::vector<std::pair<std::string, float>> best;
        for (std::size_t i = 0; i < order.size() && int(i) < k; ++i)
            best.emplace_back(labels[order[i]], chances[order[i]]);
        return best;
    }
};

}  // namespace vivit
