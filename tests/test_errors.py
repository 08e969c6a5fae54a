"""What a terminal gets to see of names that others gave to files."""

from vit_ssl_jax.errors import printable


def test_control_characters_and_bytes_without_meaning_are_written_out():
    assert printable("a\x1b[31mred\x07\r.jpg") == r"a\x1b[31mred\x07\r.jpg"
    undecodable = b"latin\xe9.jpg".decode("utf-8", "surrogateescape")
    assert printable(undecodable) == r"latin\udce9.jpg"
    assert printable("gpj.\u202efdp") == r"gpj.\u202efdp"
    same = "two lines\n\tand a tab: größe, 写真, 📷"
    assert printable(same) == same
