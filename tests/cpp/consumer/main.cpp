#include <iostream>
#include <vivit/vivit.hpp>

int main(int, char** words) {
    const vivit::Bundle bundle(words[1]);
    const vivit::Session session = vivit::open_session(bundle);
    const auto video = vivit::open_video(words[2]);
    std::cout << session(*video).top(1)[0].first << '\n';
}
