// Who signed a bundle. A signature is the file model.sig in the format of OpenSSF Model Signing 1.0, by key or by
// certificate; `vivit sign` makes it. Errors are the same sentences as in vivit_export/bundle/signatures/.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "vivit/bundle.hpp"
#include "vivit/detail/signature/verify.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// Verify that somebody trusted signed what was read of a bundle.
///
/// @param bundle    what it reads later is verified to be what was signed
/// @param files     PEM files with public keys, or with certificates of signers or of authorities: one must have signed
/// @param identity  name that the signer's certificate must have; empty: any
/// @throws SignatureError    it is not signed, its signature was altered or is of another bundle, or somebody else made
/// it
/// @throws InputError        a file holds neither keys nor certificates
/// @throws UsageError        no file, or an identity with a key
/// @throws EnvironmentFault  OpenSSL fails
inline Signer verify_signature(const Bundle& bundle, const std::vector<std::filesystem::path>& files,
                               const std::string& identity = "") {
    return detail::verify_signature(bundle, detail::read_trust(files, identity));
}

/// Refuse a bundle that is not signed by whom the environment names, or by whom the caller names.
///
/// @param files     as for `verify_signature`; none: the caller requires no signature
/// @param identity  likewise
/// @return who signed it; nothing: no signature is required
inline std::optional<Signer> require_signature(const Bundle& bundle, const std::vector<std::filesystem::path>& files,
                                               const std::string& identity = "") {
    std::optional<Signer> signer;
    if (const auto trust = detail::trust_of_environment()) signer = detail::verify_signature(bundle, *trust);
    if (files.empty() && !identity.empty()) throw UsageError("identity is for require_signature; give both");
    if (!files.empty()) signer = verify_signature(bundle, files, identity);
    return signer;
}

}  // namespace vivit
