// The errors of vivit_export/errors.py, with the same exit codes. Every message is one sentence that
// names the thing, its value and the fix.
#pragma once

#include <stdexcept>
#include <string>

namespace vivit {

/// Base of all errors that a user can act on.
class Error : public std::runtime_error {
public:
    /// The exit code that a program should use, as `vivit` does: 2 to 7.
    [[nodiscard]] int exit_code() const noexcept { return exit_code_; }

protected:
    Error(const std::string& message, int exit_code) : std::runtime_error(message), exit_code_(exit_code) {}

private:
    int exit_code_;
};

/// Options that conflict or are unknown. Exit code 2.
class UsageError : public Error {
public:
    explicit UsageError(const std::string& message) : Error(message, 2) {}
};

/// Unusable input: a clip or a bundle. Exit code 3.
class InputError : public Error {
public:
    explicit InputError(const std::string& message) : Error(message, 3) {}
};

/// A video or an array of frames that does not fit the contract. Exit code 3.
class ClipError : public InputError {
public:
    using InputError::InputError;
};

/// A bundle that is incomplete, altered, or of another format version. Exit code 3.
class BundleError : public InputError {
public:
    using InputError::InputError;
};

/// A bundle that is not signed by whom it must be signed by. Exit code 3.
class SignatureError : public BundleError {
public:
    using BundleError::BundleError;
};

/// A graph that the engine refuses. Exit code 4.
class BuildError : public Error {
public:
    explicit BuildError(const std::string& message) : Error(message, 4) {}
};

/// An engine whose results differ from the reference by more than the gate allows. Exit code 5.
class DriftError : public Error {
public:
    explicit DriftError(const std::string& message) : Error(message, 5) {}
};

/// A missing driver or device, or an engine made for another machine. Exit code 7.
class EnvironmentFault : public Error {
public:
    explicit EnvironmentFault(const std::string& message) : Error(message, 7) {}
};

}  // namespace vivit
