"""SCRAM, both ends: the RFCs' own examples, and what must be refused."""

from __future__ import annotations

import base64

import pytest

from gateway.scram import ITERATIONS_MIN, ScramClient, ScramError, ScramServer, Secret, decoy, make_secret

SALT = b"0123456789abcdef"


def server(secret: Secret, nonce: str = "server") -> ScramServer:
    return ScramServer(secret.mechanism, lambda user: secret, nonce)


def secret(mechanism: str = "SCRAM-SHA-256", password: bytes = b"pencil") -> Secret:
    return make_secret(mechanism, password, SALT, ITERATIONS_MIN)


def test_the_example_of_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    nonce = "rOprNGfwEbeRWgbNEkqO"
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", nonce)
    there = server(make_secret("SCRAM-SHA-256", b"pencil", salt, 4096), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = there.step(client.first())
    assert first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    proof = client.proof(first)
    assert proof == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    final = there.step(proof)
    assert final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client.verify(final)
    assert there.done
    assert there.user == "user"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("name", ["token", "a=b,c", "größe"])
def test_both_ends_agree_and_a_wrong_password_is_refused(mechanism: str, name: str) -> None:
    for password, good in (("pencil", True), ("Pencil", False)):
        there, client = server(secret(mechanism)), ScramClient(mechanism, name, password, "client")
        proof = client.proof(there.step(client.first()))
        if good:
            client.verify(there.step(proof))
            assert there.user == name
        else:
            with pytest.raises(ScramError, match="proof"):
                there.step(proof)


def test_a_recorded_exchange_is_worth_nothing_the_second_time() -> None:
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", "client")
    there = server(secret(), "first")
    proof = client.proof(there.step(client.first()))
    there.step(proof)
    again = server(secret(), "second")
    again.step(client.first())
    with pytest.raises(ScramError, match="proof"):
        again.step(proof)
    with pytest.raises(ScramError):
        there.step(proof)  # nor a second time in the same exchange


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"r=client", b"r=clienT"), (b"c=biws", b"c=eSws"), (b"c=biws,", b"m=x,c=biws,"), (b",p=", b",x=1,p=")],
    ids=["nonce", "header", "mandatory extension", "added field"],
)
def test_an_altered_last_message_is_refused(old: bytes, new: bytes) -> None:
    there, client = server(secret()), ScramClient("SCRAM-SHA-256", "user", "pencil", "client")
    proof = client.proof(there.step(client.first()))
    assert old in proof
    with pytest.raises(ScramError):
        there.step(proof.replace(old, new, 1))


@pytest.mark.parametrize(
    "without", ["c=eSws,r=clientserver", "c=,r=clientserver", "c=biws,r=clientserverx", "c=biws,r=server"]
)
def test_an_honest_proof_over_another_header_or_nonce_is_refused(without: str) -> None:
    there, client = server(secret()), ScramClient("SCRAM-SHA-256", "user", "pencil", "client")
    first = there.step(client.first()).decode()
    with pytest.raises(ScramError):
        there.step(_proved(f"n=user,r=client,{first},{without}", without))


def test_old_librdkafkas_repeat_their_nonce() -> None:
    # its pull request 4895: r= is the client's nonce, and then both; the proof covers what was sent
    there, client = server(secret()), ScramClient("SCRAM-SHA-256", "user", "pencil", "client")
    first = there.step(client.first()).decode()
    quirk = _proved(f"n=user,r=client,{first},c=biws,r=clientclientserver", "c=biws,r=clientclientserver")
    assert there.step(quirk).startswith(b"v=")
    there = server(secret())
    there.step(client.first())
    with pytest.raises(ScramError):
        there.step(_proved(f"n=user,r=client,{first},c=biws,r=client", "c=biws,r=client"))  # without the server's


def _proved(exchange: str, without: str) -> bytes:
    """An honest proof over any text: only the nonce is other than it should be."""
    import hashlib
    import hmac

    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, ITERATIONS_MIN)
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), exchange.encode(), "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    return f"{without},p={proof}".encode()


@pytest.mark.parametrize(
    "message",
    [b"", b"n", b"n,,", b"n,,n=,r=x", b"n,,n=user,r=", b"n,,n=us=er,r=x", b"n,a=other,n=user,r=x", b"n,,r=x,n=user",
     b"p=tls-unique,,n=user,r=x", b"n,,m=1,n=user,r=x", b"\xff,,n=user,r=x", b"n,,n=user,r=" + b"x" * 5000,
     b"n,,n=user,r=x,tokenauth=true", b"n,,n=u\0r,r=x"],
)  # fmt: skip
def test_malformed_first_messages_are_refused(message: bytes) -> None:
    with pytest.raises(ScramError):
        server(secret()).step(message)


@pytest.mark.parametrize(
    "message",
    [b"r=other,s=YWJj,i=4096", b"r=client,s=YWJj,i=4096", b"r=clientserver,s=YWJj,i=4095",
     b"r=clientserver,s=YWJj,i=999999999", b"r=clientserver,s=YWJj,i=-1", b"r=clientserver,s=,i=4096",
     b"r=clientserver,s=!,i=4096", b"m=1,r=clientserver,s=YWJj,i=4096", b"e=other-error"],
)  # fmt: skip
def test_a_client_refuses_a_server_that_cheats(message: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient("SCRAM-SHA-256", "user", "pencil", "client").proof(message)


def test_a_client_finds_out_a_server_that_does_not_know_the_password() -> None:
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", "client")
    there = server(secret())
    final = there.step(client.proof(there.step(client.first())))
    for wrong in (final.replace(b"v=", b"v=A"), b"v=", b"e=invalid-proof", b""):
        with pytest.raises(ScramError):
            client.verify(wrong)


def test_a_user_that_there_is_not_looks_like_one() -> None:
    stranger, again = decoy("SCRAM-SHA-256", "nobody", b"key"), decoy("SCRAM-SHA-256", "nobody", b"key")
    assert stranger == again
    assert stranger.salt != decoy("SCRAM-SHA-256", "no body", b"key").salt
    assert (stranger.iterations, len(stranger.salt)) == (make_secret("SCRAM-SHA-256", b"x", SALT).iterations, len(SALT))
    client = ScramClient("SCRAM-SHA-256", "nobody", "", "client")
    there = server(stranger)
    with pytest.raises(ScramError, match="the proof is wrong"):
        there.step(client.proof(there.step(client.first())))
