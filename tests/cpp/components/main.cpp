// Lists the engines of the program and opens some, in an object that was compiled with no component at all.
//
//     components BUNDLE ENGINE...        an empty ENGINE leaves the choice to the library
#include <iostream>
#include <string>
#include <vivit/vivit.hpp>

int main(int count, char** words) {
    for (const std::string& engine : vivit::engines_of_this_program()) std::cout << engine << ' ';
    std::cout << '\n';
    const vivit::Bundle bundle(words[1]);
    for (int i = 2; i < count; ++i) try {
            std::cout << vivit::open_session(bundle, {words[i], ""}).engine() << '\n';
        } catch (const vivit::Error& e) {
            std::cout << e.what() << '\n';
        }
}
