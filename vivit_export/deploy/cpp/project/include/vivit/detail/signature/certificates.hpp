// X.509 certificates of signers, and the chain from one to a certificate that the verifier trusts. Errors are the same
// sentences as in vivit_export/bundle/signatures/certificates.py.
#pragma once

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/limits.hpp"
#include "vivit/detail/signature/keys.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

using CertificateHandle = std::shared_ptr<X509>;

[[nodiscard]] inline std::string text_of(const ASN1_STRING* text) {
    return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), std::size_t(ASN1_STRING_length(text))};
}

/// A certificate.
class Certificate {
public:
    /// @param found  never nullptr
    /// @param where  what messages call it
    /// @throws InputError  its extensions cannot be read
    Certificate(CertificateHandle found, std::string where) : found_(std::move(found)), where_(std::move(where)) {
        if (X509_get_extension_flags(found_.get()) & EXFLAG_INVALID)
            throw InputError(where_ + " is a certificate that cannot be read");
        read_alternative_names();
        if (names_.empty()) read_common_names();
        ERR_clear_error();
    }

    [[nodiscard]] X509* get() const noexcept { return found_.get(); }
    [[nodiscard]] const std::string& where() const noexcept { return where_; }

    /// The addresses, URIs and hosts that it is for; its common names if there are none.
    [[nodiscard]] const std::vector<std::string>& names() const noexcept { return names_; }

    /// Whose it is, and where it is, for people.
    [[nodiscard]] std::string title() const {
        return where_ + " (" + (names_.empty() ? "a certificate without a name" : names_.front()) + ")";
    }

    /// Its key.
    ///
    /// @throws InputError  it is of a kind that is not used for signatures
    [[nodiscard]] PublicKey public_key() const {
        const KeyHandle key(X509_get_pubkey(found_.get()), EVP_PKEY_free);
        if (!key) throw InputError(where_ + " is a certificate that cannot be read");
        return {key, where_};
    }

    /// Refuse a certificate that must not sign a bundle now.
    ///
    /// @throws InputError  says why
    void require_signer() const {
        (void)public_key();
        const std::time_t now = std::time(nullptr);
        std::tm begin{}, end{};
        if (ASN1_TIME_to_tm(X509_get0_notBefore(found_.get()), &begin) != 1 ||
            ASN1_TIME_to_tm(X509_get0_notAfter(found_.get()), &end) != 1)
            throw InputError(where_ + " is a certificate that cannot be read");
        if (now < ::timegm(&begin) || now > ::timegm(&end))
            throw InputError(title() + " is valid from " + date(begin) + " to " + date(end) +
                             ", which is not now; sign with one that is");
        const auto usage = X509_get_key_usage(found_.get()), purposes = X509_get_extended_key_usage(found_.get());
        if (usage == UINT32_MAX || !(usage & KU_DIGITAL_SIGNATURE))
            throw InputError(title() + " is not for signatures: its usage lacks digitalSignature");
        if (purposes != UINT32_MAX && !(purposes & XKU_CODE_SIGN))
            throw InputError(title() + " is not for signatures: its purposes lack codeSigning");
    }

    /// Whether it may issue others.
    [[nodiscard]] bool is_authority() const {
        const auto flags = X509_get_extension_flags(found_.get());
        return (flags & EXFLAG_BCONS) && (flags & EXFLAG_CA);
    }

    [[nodiscard]] bool operator==(const Certificate& other) const { return X509_cmp(get(), other.get()) == 0; }

private:
    [[nodiscard]] static std::string date(const std::tm& moment) {
        std::string text(64, '\0');
        text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &moment));
        return text;
    }

    void read_alternative_names() {
        const std::unique_ptr<GENERAL_NAMES, void (*)(GENERAL_NAMES*)> names(
            static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(found_.get(), NID_subject_alt_name, nullptr, nullptr)),
            GENERAL_NAMES_free);
        for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
            const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
            if (name->type == GEN_EMAIL || name->type == GEN_URI || name->type == GEN_DNS)
                names_.push_back(text_of(name->d.ia5));
        }
    }

    void read_common_names() {
        X509_NAME* subject = X509_get_subject_name(found_.get());
        for (int i = -1; (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;) {
            unsigned char* utf8 = nullptr;
            const int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));
            if (size >= 0) names_.emplace_back(reinterpret_cast<const char*>(utf8), std::size_t(size));
            OPENSSL_free(utf8);
        }
    }

    CertificateHandle found_;
    std::string where_;
    std::vector<std::string> names_;
};

/// Parse all certificates of a PEM file.
///
/// @throws InputError  one cannot be parsed
[[nodiscard]] inline std::vector<Certificate> parse_certificates(const std::string& pem, const std::string& path) {
    const Memory bytes(pem);
    std::vector<Certificate> certificates;
    while (X509* found = PEM_read_bio_X509(bytes.get(), nullptr, nullptr, nullptr))
        certificates.emplace_back(CertificateHandle(found, X509_free), path);
    ERR_clear_error();
    if (certificates.size() != kinds_in(pem).size())
        throw InputError(path + " holds a certificate that cannot be read; copy it again");
    return certificates;
}

/// Parse the certificates of a signature.
///
/// @throws SignatureError  one cannot be parsed
[[nodiscard]] inline std::vector<Certificate> parse_chain(const std::vector<std::string>& ders,
                                                          const std::string& path) {
    std::vector<Certificate> chain;
    for (const std::string& der : ders) {
        const std::string where = "certificate " + std::to_string(chain.size() + 1) + " of " + path;
        const auto* at = reinterpret_cast<const unsigned char*>(der.data());
        const auto* end = at + der.size();
        const CertificateHandle found(d2i_X509(nullptr, &at, long(der.size())), X509_free);
        ERR_clear_error();
        try {
            if (!found || at != end) throw InputError("");
            chain.emplace_back(found, where);
        } catch (const InputError&) {
            throw SignatureError(where + " cannot be read; sign the bundle again");
        }
    }
    return chain;
}

/// Whether a certificate of a chain may have issued the one before it; the library has checked its dates and
/// signatures.
[[nodiscard]] inline bool is_sound_authority(X509* found) {
    const auto flags = X509_get_extension_flags(found);
    const auto usage = X509_get_key_usage(found);
    EVP_PKEY* key = X509_get0_pubkey(found);
    if (!key || usage == UINT32_MAX || !(usage & KU_KEY_CERT_SIGN)) return false;
    if (!(flags & EXFLAG_BCONS) || !(flags & EXFLAG_CA) || (flags & EXFLAG_INVALID)) return false;
    return hash_of_curve(key) || (EVP_PKEY_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_bits(key) >= 2048);
}

/// Whether a chain leads from a signer to one of the trusted certificates, after RFC 5280.
[[nodiscard]] inline bool leads_to(const std::vector<Certificate>& chain, const std::vector<Certificate>& trusted) {
    const std::unique_ptr<X509_STORE, void (*)(X509_STORE*)> store(X509_STORE_new(), X509_STORE_free);
    const std::unique_ptr<X509_STORE_CTX, void (*)(X509_STORE_CTX*)> context(X509_STORE_CTX_new(), X509_STORE_CTX_free);
    const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> others(sk_X509_new_null(),
                                                                            [](STACK_OF(X509)* s) { sk_X509_free(s); });
    if (!store || !context || !others) throw EnvironmentFault("OpenSSL failed to take memory");
    for (const Certificate& one : trusted) X509_STORE_add_cert(store.get(), one.get());
    for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(others.get(), chain[i].get());
    if (X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), others.get()) != 1)
        throw EnvironmentFault("OpenSSL failed to take memory");
    X509_VERIFY_PARAM* rules = X509_STORE_CTX_get0_param(context.get());
    X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);  // a trusted authority need not be a root
    X509_VERIFY_PARAM_set_depth(rules, most_certificates);
    X509_VERIFY_PARAM_set_auth_level(rules, 2);  // no SHA-1, no RSA key below 2048 bits
    bool sound = X509_verify_cert(context.get()) == 1;
    const STACK_OF(X509)* found = sound ? X509_STORE_CTX_get0_chain(context.get()) : nullptr;
    for (int i = 1; found && i < sk_X509_num(found); ++i) sound = sound && is_sound_authority(sk_X509_value(found, i));
    ERR_clear_error();
    return sound;
}

/// Refuse a signer whom nobody vouches for that the verifier trusts.
///
/// @param chain    the signer's certificate, and those of authorities
/// @param trusted  the signer's own, or those of authorities
/// @param source   where the latter are from, for messages
/// @throws SignatureError  the certificate is not to be used now, or no chain leads to a trusted one
inline void require_chain(const std::vector<Certificate>& chain, const std::vector<Certificate>& trusted,
                          const std::string& source) {
    const Certificate& signer = chain.front();
    try {
        signer.require_signer();
    } catch (const InputError& e) {
        throw SignatureError(e.what());
    }
    if (std::find(trusted.begin(), trusted.end(), signer) != trusted.end()) return;
    if (signer.is_authority())
        throw SignatureError(signer.title() +
                             " is the certificate of an authority, which does not sign bundles itself");
    if (!leads_to(chain, trusted))
        throw SignatureError(signer.title() + " is not vouched for by " + source +
                             ": no chain leads there of certificates that are valid now, of authorities, and strong "
                             "enough");
}

}  // namespace vivit::detail
