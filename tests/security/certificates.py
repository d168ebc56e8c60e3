"""Certificates made for one test run: an authority, and what it vouches for on 127.0.0.1."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A key and its certificate, as files."""

    certificate: Path
    key: Path
    both: Path  # key and certificate in one file, as Kafka's PEM stores have them


class Authority:
    """Vouches for servers and clients; its own certificate is `file`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("millrace test authority")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = self._builder(self._name, self._key).add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._certificate.public_bytes(PEM))

    def vouch(self, name: str, password: str | None = None) -> Identity:
        """A key, behind a password if there is one, and a certificate for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = self._builder(_named(name), key).add_extension(place, critical=False).sign(self._key, hashes.SHA256())
        secrecy = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        found = Identity(self._folder / f"{name}.crt", self._folder / f"{name}.key", self._folder / f"{name}.pem")
        found.certificate.write_bytes(certificate.public_bytes(PEM))
        found.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secrecy))
        found.both.write_bytes(found.key.read_bytes() + found.certificate.read_bytes())
        return found

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
