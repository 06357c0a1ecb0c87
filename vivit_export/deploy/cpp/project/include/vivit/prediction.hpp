// The result of a session.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// The model's prediction for one clip.
struct Prediction {
    std::vector<float> logits;        ///< (num_labels,), empty for a bundle without that output
    std::vector<float> embedding;     ///< (hidden,), empty for a bundle without that output
    std::vector<std::string> labels;  ///< (num_labels,), by index of the logits
    Task task = Task::single_label_classification;
    double preprocess_ms = 0;  ///< resize and crop, in milliseconds
    double inference_ms = 0;   ///< everything after it, in milliseconds

    /// What the task makes of the logits, computed in double: their softmax if one label is right, the sigmoid of
    /// each if any number of labels may be, and the logits themselves for a regression.
    ///
    /// @return (num_labels,)
    /// @throws UsageError  there are no logits
    [[nodiscard]] std::vector<float> scores() const {
        if (logits.empty())
            throw UsageError("this bundle has an embedding but no logits; export it with --outputs logits,embedding");
        if (task == Task::regression) return logits;
        return task == Task::multi_label_classification ? sigmoids() : softmax();
    }

    /// The scores of a classification.
    ///
    /// @return (num_labels,), each in [0, 1]
    /// @throws UsageError  there are no logits, or they are values of a regression
    [[nodiscard]] std::vector<float> probabilities() const {
        if (task == Task::regression && !logits.empty())
            throw UsageError("the outputs of this bundle are values of a regression, not probabilities; take scores");
        return scores();
    }

    /// Labels with their scores: the most probable, best first; of a regression the first ones, in order.
    ///
    /// @param k  how many; all if there are fewer
    /// @throws UsageError  there are no logits
    [[nodiscard]] std::vector<std::pair<std::string, float>> top(int k = 5) const {
        const std::vector<float> found = scores();
        std::vector<std::size_t> order(found.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        if (task != Task::regression)
            std::stable_sort(order.begin(), order.end(),
                             [&](std::size_t a, std::size_t b) { return found[a] > found[b]; });
        std::vector<std::pair<std::string, float>> best;
        for (std::size_t i = 0; i < order.size() && int(i) < k; ++i)
            best.emplace_back(labels[order[i]], found[order[i]]);
        return best;
    }

private:
    [[nodiscard]] std::vector<float> softmax() const {
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

    [[nodiscard]] std::vector<float> sigmoids() const {
        std::vector<float> chances;
        chances.reserve(logits.size());
        for (const float logit : logits) {
            const double power = std::exp(-std::abs(double(logit)));  // never above 1, so without overflow
            chances.push_back(float(logit < 0 ? power / (1 + power) : 1 / (1 + power)));
        }
        return chances;
    }
};

}  // namespace vivit
