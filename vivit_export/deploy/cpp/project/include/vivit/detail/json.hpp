// From JSON to types, with the checks and sentences of vivit_export/records.py.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "vivit/errors.hpp"

namespace vivit::detail {

using nlohmann::json;

/// A string in Python's notation.
[[nodiscard]] inline std::string quoted(const std::string& text) {
    const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
    std::string result(1, quote);
    for (const char c : text) {
        if (c == '\\' || c == quote) result += '\\';
        if (c == '\n' || c == '\r' || c == '\t')
            result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
        else
            result += c;
    }
    return result + quote;
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

/// The same, shortened to 60 characters.
[[nodiscard]] inline std::string shown_shortly(const json& value) {
    const std::string text = shown(value);
    return text.size() <= 60 ? text : text.substr(0, 60) + "…";
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
        if (!value.is_number_integer()) refuse<std::int64_t>(value, where);
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
                throw InputError(where_ + " has an unknown field " + quoted(key) +
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
