// From JSON to types, with the checks and sentences of vivit_export/records.py.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "vivit/detail/limits.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

using nlohmann::json;

/// A string in Python's notation, which spells out what a terminal would obey.
[[nodiscard]] inline std::string quoted(const std::string& text) {
    const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
    std::string result;
    for (const char c : text) {
        if (c == '\\' || c == quote) result += '\\';
        result += c;
    }
    return quote + one_line(result) + quote;
}

/// A value in Python's notation, as the sentences on both sides quote it.
[[nodiscard]] inline std::string shown(const json& value) {
    if (value.is_null()) return "None";
    if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
    if (value.is_string()) return quoted(value.get<std::string>());
    if (value.is_array() || value.is_object()) {
        std::string text;
        for (const auto& [key, item] : value.items()) {
            text += text.empty() ? "" : ", ";
            text += value.is_object() ? quoted(key) + ": " + shown(item) : shown(item);
        }
        return value.is_array() ? "[" + text + "]" : "{" + text + "}";
    }
    return value.dump();
}

/// Characters of UTF-8, as Python counts them.
[[nodiscard]] inline std::size_t count_characters(const std::string& text) {
    std::size_t count = 0;
    for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    return count;
}

/// The beginning of a text: at most 60 characters.
[[nodiscard]] inline std::string shortly(const std::string& text) {
    std::size_t count = 0;  // of characters, as in Python; never a part of one
    for (std::size_t i = 0; i < text.size(); ++i)
        if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && ++count > 60) return text.substr(0, i) + "…";
    return text;
}

/// A value, shortened to 60 characters.
[[nodiscard]] inline std::string shown_shortly(const json& value) { return shortly(shown(value)); }

/// Refuse integers beyond 64 bits, which the parser would turn into other numbers, and what only it passes over.
///
/// @throws InputError  there is one; or a byte order mark, or more than `most_containers` arrays and objects
inline void require_plain(const std::string& text) {
    if (text.rfind("\xEF\xBB\xBF", 0) == 0) throw InputError("it begins with a byte order mark");
    if (std::count(text.begin(), text.end(), '[') + std::count(text.begin(), text.end(), '{') > most_containers)
        throw InputError("it has more than " + std::to_string(most_containers) + " arrays and objects");
    bool in_text = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (in_text && text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            in_text = !in_text;
        } else if (!in_text && text[i] >= '0' && text[i] <= '9') {
            const std::size_t end = std::min(text.find_first_not_of("0123456789.eE+-", i), text.size());
            const std::string number = text.substr(i, end - i);
            const bool is_integer = number.find_first_of(".eE+-") == std::string::npos;
            if (is_integer && (number.size() > 19 || (number.size() == 19 && number > "9223372036854775807")))
                throw InputError("the number " + shortly(number) + " is beyond 64 bits");
            i = end - 1;
        }
    }
}

/// Parse JSON strictly. What reads it recurses, so its depth is limited; and no key may stand twice in one object,
/// because readers would disagree about its value.
///
/// @throws json::parse_error  it is not JSON
/// @throws InputError         see `require_plain`; or it is deeper than `most_levels`, or has a key twice
[[nodiscard]] inline json parse_json(const std::string& text) {
    require_plain(text);
    std::vector<std::set<std::string>> keys;
    const auto strict = [&keys](int depth, json::parse_event_t event, json& parsed) {
        const bool object = event == json::parse_event_t::object_start;
        if ((object || event == json::parse_event_t::array_start) && depth >= most_levels)
            throw InputError("it has more than " + std::to_string(most_levels) + " levels of arrays and objects");
        if (object) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
            throw InputError("the key " + shown_shortly(parsed) + " stands twice in one object");
        return true;
    };
    try {
        return json::parse(text, strict);
    } catch (const json::out_of_range&) {
        throw InputError("a number is beyond what 64 bits hold");
    }
}

/// Names of an enum's values in JSON, in order; specialized beside each enum.
template <typename E>
struct Names;

/// How to read one type: `words` names the expected type, `read` throws an InputError.
template <typename T, typename = void>
struct As;

template <typename T>
[[noreturn]] void refuse(const json& value, const std::string& where) {
    throw InputError(where + " must be " + As<T>::words() + ", got " + shown_shortly(value));
}

template <>
struct As<int> {
    static std::string words() { return "int"; }
    static int read(const json& value, const std::string& where) {
        // A size beyond int is not a size of a clip.
        if (!value.is_number_integer() || std::fabs(value.get<double>()) > std::numeric_limits<int>::max())
            refuse<int>(value, where);
        return value.get<int>();
    }
};

template <>
struct As<std::int64_t> {
    static std::string words() { return "int"; }
    static std::int64_t read(const json& value, const std::string& where) {
        const auto most = std::uint64_t(std::numeric_limits<std::int64_t>::max());
        if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > most))
            refuse<std::int64_t>(value, where);
        return value.get<std::int64_t>();
    }
};

template <>
struct As<bool> {
    static std::string words() { return "bool"; }
    static bool read(const json& value, const std::string& where) {
        if (!value.is_boolean()) refuse<bool>(value, where);
        return value.get<bool>();
    }
};

template <>
struct As<double> {
    static std::string words() { return "a finite number"; }
    static double read(const json& value, const std::string& where) {
        if (!value.is_number() || !std::isfinite(value.get<double>())) refuse<double>(value, where);
        return value.get<double>();
    }
};

template <>
struct As<std::string> {
    static std::string words() { return "str"; }
    static std::string read(const json& value, const std::string& where) {
        if (!value.is_string()) refuse<std::string>(value, where);
        return value.get<std::string>();
    }
};

template <typename E>
struct As<E, std::enable_if_t<std::is_enum_v<E>>> {
    static std::string words() {
        std::string text;
        for (const char* name : Names<E>::all) text += (text.empty() ? "" : " or ") + std::string(name);
        return text;
    }
    static E read(const json& value, const std::string& where) {
        int index = 0;
        for (const char* name : Names<E>::all) {
            if (value == name) return static_cast<E>(index);
            ++index;
        }
        refuse<E>(value, where);
    }
};

[[nodiscard]] inline std::string at(const std::string& where, std::size_t i) {
    return where + "[" + std::to_string(i) + "]";
}

template <typename T, std::size_t N>
struct As<std::array<T, N>> {
    static std::string words() { return "a list of " + std::to_string(N) + " " + As<T>::words(); }
    static std::array<T, N> read(const json& value, const std::string& where) {
        if (!value.is_array() || value.size() != N) refuse<std::array<T, N>>(value, where);
        std::array<T, N> items;
        for (std::size_t i = 0; i < N; ++i) items[i] = As<T>::read(value[i], at(where, i));
        return items;
    }
};

template <typename T>
struct As<std::vector<T>> {
    static std::string words() { return "a list of " + As<T>::words(); }
    static std::vector<T> read(const json& value, const std::string& where) {
        if (!value.is_array()) refuse<std::vector<T>>(value, where);
        std::vector<T> items;
        for (std::size_t i = 0; i < value.size(); ++i) items.push_back(As<T>::read(value[i], at(where, i)));
        return items;
    }
};

template <typename T>
struct As<std::optional<T>> {
    static std::string words() { return As<T>::words() + " or null"; }
    static std::optional<T> read(const json& value, const std::string& where) {
        if (value.is_null()) return std::nullopt;
        try {
            return As<T>::read(value, where);
        } catch (const InputError&) {
            refuse<std::optional<T>>(value, where);
        }
    }
};

/// One JSON object: refuses unknown fields, then returns the known ones.
class Object {
public:
    Object(const json& data, std::string where, std::initializer_list<const char*> fields)
        : data_(data), where_(std::move(where)) {
        if (!data.is_object()) throw InputError(where_ + " must be a JSON object, got " + kind(data));
        for (const auto& [key, value] : data.items()) {
            bool known = false;
            for (const char* field : fields) known = known || key == field;
            if (!known)
                throw InputError(where_ + " has an unknown field " + shown_shortly(key) +
                                 "; it was written by another version");
        }
    }

    /// A required field.
    template <typename T>
    [[nodiscard]] T get(const char* name) const {
        require({name});
        return As<T>::read(data_[name], where_ + "." + name);
    }

    /// Refuse an object that lacks one of these fields.
    void require(std::initializer_list<const char*> fields) const {
        for (const char* field : fields)
            if (!data_.contains(field)) throw InputError(where_ + " lacks the field '" + field + "'; it is incomplete");
    }

    /// An optional field that keeps its default if it is absent.
    template <typename T>
    void take(const char* name, T& field) const {
        if (data_.contains(name)) field = get<T>(name);
    }

private:
    static std::string kind(const json& value) {
        if (value.is_null()) return "NoneType";
        if (value.is_boolean()) return "bool";
        if (value.is_string()) return "str";
        if (value.is_array()) return "list";
        return value.is_number_integer() ? "int" : "float";
    }

    const json& data_;
    std::string where_;
};

}  // namespace vivit::detail
