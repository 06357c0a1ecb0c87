// Adds up 1 to 1000 on eight threads and prints the sum; then does work that fails, and prints why.
#include <atomic>
#include <iostream>
#include <stdexcept>
#include <vivit/detail/parallel.hpp>

int main() {
    struct None {};
    std::atomic<int> sum{0};
    vivit::detail::in_parallel<None>(1000, 8, [&](int i, None&) { sum += i + 1; });
    std::cout << sum << '\n';
    try {
        vivit::detail::in_parallel<None>(1000, 8, [](int i, None&) {
            if (i == 500) throw std::runtime_error("500");
        });
    } catch (const std::runtime_error& e) {
        std::cout << e.what() << '\n';
    }
}
