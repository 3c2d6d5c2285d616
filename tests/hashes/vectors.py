"""Hashes that other programs made of one password, and who made each."""

from __future__ import annotations

from typing import NamedTuple

PASSWORD = "pässword"
SALT = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"


class Vector(NamedTuple):
    """A hash of :data:`PASSWORD`.

    :param name: a name for it.
    :param text: the hash as it is stored.
    :param kind: the kind that it is of.
    """

    name: str
    text: str
    kind: str


VECTORS = (
    # Apache 2.4.71's htpasswd -nbB -C 4, -nb5 -r 1000, -nb2
    Vector(
        "htpasswd_bcrypt",
        "$2y$04$9fbvS/h9wtos8JduH9lfzuEmq.7elPC9PJinBsrAIGgyMDejoqc.i",
        "bcrypt cost=4",
    ),
    Vector(
        "htpasswd_sha512",
        "$6$rounds=1000$nObDH3.EPS/JzybK$mp3zmdhwrYm8yOsUE2inFbGctpcM796aDueHkqFIr9mtjiAeK6okJfw0"
        "yb33T7bgmXBQR.IgQZwqj/.WbgGAM0",
        "crypt $6$ rounds=1000 salt=16",
    ),
    Vector(
        "htpasswd_sha256",
        "$5$JJKRwxOvhnikWxRg$uTkMiARWql7RkRVhRvQiZkUl/c69Cl4POjzVTRQai25",
        "crypt $5$ rounds=5000 salt=16",
    ),
    # PHP 8.2.36's password_hash(), which phpBB, Nextcloud, Drupal and others call
    Vector(
        "php_bcrypt",
        "$2y$04$DyxowJBaT.ZDsDkcUiE5OOhga0WUw.yl/eK7wbD95Wj8ga7PXA6oS",
        "bcrypt cost=4",
    ),
    Vector(
        "php_argon2id",
        "$argon2id$v=19$m=1024,t=1,p=1$M2p5TVFsREJmYlFyZ1phYw$NOqVJbEFb+pmJLwUo9rhZdrhDVz3+vj22CWi"
        "K3MjhUw",
        "argon2id m=1024 t=1 p=1",
    ),
    Vector(
        "php_argon2i",
        "$argon2i$v=19$m=1024,t=1,p=1$Um9XV3k1TjlsbmNLM0RESw$l02S6GDN2fMS7NJAhO3nVGj75hcsZUeBMdslr"
        "gom0P0",
        "argon2i m=1024 t=1 p=1",
    ),
    # Nextcloud's three, which are the same after a number
    Vector(
        "nextcloud_1",
        "1|$2y$04$DyxowJBaT.ZDsDkcUiE5OOhga0WUw.yl/eK7wbD95Wj8ga7PXA6oS",
        "bcrypt cost=4",
    ),
    Vector(
        "nextcloud_2",
        "2|$argon2i$v=19$m=1024,t=1,p=1$Um9XV3k1TjlsbmNLM0RESw$l02S6GDN2fMS7NJAhO3nVGj75hcsZUeBMds"
        "lrgom0P0",
        "argon2i m=1024 t=1 p=1",
    ),
    Vector(
        "nextcloud_3",
        "3|$argon2id$v=19$m=1024,t=1,p=1$M2p5TVFsREJmYlFyZ1phYw$NOqVJbEFb+pmJLwUo9rhZdrhDVz3+vj22C"
        "WiK3MjhUw",
        "argon2id m=1024 t=1 p=1",
    ),
    # PHP 8.2.36's hash_hmac() and password_hash(), as WordPress 6.8 calls them
    Vector(
        "wordpress",
        "$wp$2y$04$zg3X5mjnCUz5ZF77ICkeKuynOspvB.i59R0sf.aVkpkjeEYJbQgbK",
        "wordpress-bcrypt cost=4",
    ),
    # Argon2's own command, 20171227: -id -t 1 -k 1024 -p 1 -e, and -i … -v 10
    Vector(
        "argon2_cli",
        "$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHRzYWx0$lm/kdwXhsQZ4VX7Qg7yU5ROEqr9xZqfdrX33kVikZ5"
        "8",
        "argon2id m=1024 t=1 p=1",
    ),
    Vector(
        "argon2_version_16",
        "$argon2i$v=16$m=1024,t=1,p=1$c2FsdHNhbHRzYWx0$N1X/2Ss3sP4TLtSVK0yu3jrupcd8yZMeqOEo92oWxLI",
        "argon2i m=1024 t=1 p=1 v=16",
    ),
    # Django 5.2.19's hashers
    Vector(
        "django_pbkdf2_sha256",
        "pbkdf2_sha256$1000$glCJ1x5RIETz7fdW2MG2Nu$AFI2GA7WLzxbSrA8y9Q1n3VnsLRvc2ZBR9FjSi/Qtkg=",
        "pbkdf2-sha256 iterations=1000",
    ),
    Vector(
        "django_pbkdf2_sha1",
        "pbkdf2_sha1$1000$OVVQGq3vPj2OpVvzoqfVzZ$f5ZZ+t2ZD5nTGwLi7hTWmwuxgoI=",
        "pbkdf2-sha1 iterations=1000",
    ),
    Vector(
        "django_scrypt",
        "scrypt$1024$cm6n2AggqM080oLHMwap8a$8$5$XnnbIUtJnplVABMGNAb7z8o5bpz9fIKpWw+9c/QgW5kvy7o/uW"
        "emU1wdhrryWygBCRS4XSpRC61r7C+vMuWv3w==",
        "scrypt N=1024 r=8 p=5",
    ),
    Vector(
        "django_argon2",
        "argon2$argon2id$v=19$m=1024,t=2,p=8$NFE3d0FWa1BkTGU2ZDRZMUJWQWJ4UQ$KiOTo2+qvcvdFG4XH3e7I+"
        "wjgeF3kInc6ETjOcSo4ek",
        "argon2id m=1024 t=2 p=8",
    ),
    Vector(
        "django_bcrypt_sha256",
        "bcrypt_sha256$$2b$04$g0hYn3vML76PObqdPxH3luJLo1ndq.3yMFFR.XdRMUo9UH4QJySdq",
        "bcrypt-sha256 cost=4",
    ),
    Vector(
        "django_bcrypt",
        "bcrypt$$2b$04$qhsTvUlVLvfm7qTIiWDLLO919f9ssiTVR8f1cOmCXzdg2RzIJZgPe",
        "bcrypt cost=4",
    ),
    # passlib 1.7.4
    Vector(
        "passlib_pbkdf2_sha1",
        "$pbkdf2$1000$1DpHSMmZM.bcm5OSsra2lg$wWgWmPPLjN/Rl382FGvph2.1fcg",
        "pbkdf2-sha1 iterations=1000",
    ),
    Vector(
        "passlib_pbkdf2_sha256",
        "$pbkdf2-sha256$1000$EIKQspayNoZwDoGQMiaktA$kvP6r7CmJWwTxbHhiD/Q.NRbRMf1GjwXgIr/bd1oiR8",
        "pbkdf2-sha256 iterations=1000",
    ),
    Vector(
        "passlib_pbkdf2_sha512",
        "$pbkdf2-sha512$1000$0LpXihFCSGntHcN4b82Zcw$mx3/uBqtmifemnM0iCC4Nq.K8.YZmrMK6zA0nlRM29RjmJ"
        "5reA2cRBxF55bs0hG.AL2b7pDRMBJaC19VLQz/yQ",
        "pbkdf2-sha512 iterations=1000",
    ),
    Vector(
        "passlib_scrypt",
        "$scrypt$ln=10,r=8,p=1$07q3lvL+X0tpTalVirG2dg$MibcyfnsQhc5sxQIfS9EbKPr74OXgsV/Hc77sRcb09U",
        "scrypt N=1024 r=8 p=1",
    ),
    Vector(
        "passlib_phpass",
        "$P$6myaqVgp6VUmNuApSvqsL/eCur6r4u1",
        "phpass $P$ rounds=256",
    ),
    Vector(
        "passlib_ssha256",
        "{SSHA256}JkdCASgKreZfexDMzFJg1aSqEro1WEOR3HWBoxR9qpsIAUDoPUfovQ==",
        "{SSHA256}",
    ),
    Vector(
        "passlib_ldap_pbkdf2",
        "{PBKDF2}1000$D4GwNgag9F7rvVeq1ToHQA$ea75k6mC7du/VkDGQavMbYAmBJ4",
        "pbkdf2-sha1 iterations=1000",
    ),
    Vector(
        "passlib_ldap_pbkdf2_sha256",
        "{PBKDF2-SHA256}1000$zhmjdC6lNIaQsnYOobSWcg$4DAhgjzgi7YZ/YptVYiRgGBPDb1w3EaeehBriLrrlRU",
        "pbkdf2-sha256 iterations=1000",
    ),
    Vector(
        "passlib_ldap_pbkdf2_sha512",
        "{PBKDF2-SHA512}1000$9J5zbo1x7j3HuJfSGkNoDQ$nPW3AgMI/XFJdDwRhJtCX7sO2PQcK0jnibYZrnSewezLyL"
        "TuJRpaPqNBuekCsYGVMlYaMLubkYJKlGfV.lAiWw",
        "pbkdf2-sha512 iterations=1000",
    ),
    # Dovecot 2.3.19's doveadm pw
    Vector(
        "dovecot_bcrypt",
        "{BLF-CRYPT}$2y$04$FXP8dvhCvcwZ98PgrRSPuO68qCEuP5vqDCUFGqAmkz6XpijNwzaka",
        "bcrypt cost=4",
    ),
    Vector(
        "dovecot_crypt",
        "{CRYPT}$2y$05$Fr9sWvowHrbhVuj.8oJhneTgYip/xkyN6DT6O/ynAcAvAx0J8g5PK",
        "bcrypt cost=5",
    ),
    Vector(
        "dovecot_sha256",
        "{SHA256-CRYPT}$5$v5DHAxulLswYc2Ib$nAdHoy2blRdOuOi7qQQcO8L1roda7n93dfn6yDi58jC",
        "crypt $5$ rounds=5000 salt=16",
    ),
    Vector(
        "dovecot_sha512",
        "{SHA512-CRYPT}$6$8XCgSUT22DD1MZpM$5aUIdR2DJSbQve3vUXZxBbUKXN6ws8cCZs6K9TjPtAxEeZP8pJes1qH"
        "Jio3UDss8/PFBjF31OVgHLsCRI.TaT/",
        "crypt $6$ rounds=5000 salt=16",
    ),
    Vector("dovecot_ssha", "{SSHA}p1eqs0msdLScxHrHNVYCHrpuqTzOj4eE", "{SSHA}"),
    Vector(
        "dovecot_ssha_hex", "{SSHA.HEX}26cdbc280df503508b3acf8eeb00a0692c63c21b9518b149", "{SSHA}"
    ),
    Vector(
        "dovecot_ssha256_hex",
        "{SSHA256.HEX}fc99cee7bdf5834e89fda65d3f02d7e04a98b784aa16685df64d3a2b18b60b242abfa201",
        "{SSHA256}",
    ),
    Vector(
        "dovecot_ssha512",
        "{SSHA512}2ryjk6a8vkbvrIAdknsi76RN4Y/pmjQsVGdAjk/7zjiIWPmuMqH+vxYlsrMxN9HK2pB6M/erKtYED/ud"
        "YPoSLFcNZMk=",
        "{SSHA512}",
    ),
    Vector(
        "dovecot_ssha512_b64",
        "{SSHA512.b64}Kjojq4lVIxJ4eWv2nLUbynBsBN8oJuH25cRYCR5+4AIqff7JQWUUskusRAly3cxZ4+UlaN7E9Jah"
        "3DTltd4Arawz61g=",
        "{SSHA512}",
    ),
    Vector(
        "dovecot_pbkdf2",
        "{PBKDF2}$1$S8vZUOSVc3iEnIIt$1000$810037143ffdd55bb0a7902386badd3b46524dfb",
        "pbkdf2-sha1 iterations=1000",
    ),
    Vector(
        "dovecot_argon2id",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$UNt8HKHNRdIEaaftEhIcLw$siwxmfpAxvQC5jw56fVjqE1O4"
        "+qudr68duVcXG0BUjQ",
        "argon2id m=65536 t=3 p=1",
    ),
    Vector(
        "dovecot_argon2i",
        "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$0hOq85eksm2hTEuVMD/zOA$8aQNkliee1EfyqHiafkCM5RDK04"
        "sKSqlMTyhQHfVQ0I",
        "argon2i m=32768 t=4 p=1",
    ),
    # OpenLDAP 2.5.13's slappasswd
    Vector("openldap_ssha", "{ssha}EV6YW0mcvDwX5xfOu/67xJkBmMIcmW6N", "{SSHA}"),
    Vector(
        "openldap_ssha512",
        "{SSHA512}pGHKBjF79vH3HizKMNRLunCnLJQj+JKNWcGQ1eX72g1ceIlWedV8M8Kb5iOYmiIFhNAptVqcBx7S184P"
        "1eRlFlFZQnpoyyNR",
        "{SSHA512}",
    ),
    Vector(
        "openldap_crypt",
        "{CRYPT}$6$rounds=1000$kZYb365e$57ObyvNyk6OBOXoRsLNGH0F7ZAxP/LZoy6PFzczDNScEWH0eKgVKJQpk2Di"
        "IwMqr5AZBYBx8CQkcYFq8MiSno/",
        "crypt $6$ rounds=1000 salt=8",
    ),
    Vector(
        "openldap_argon2",
        "{ARGON2}$argon2i$v=19$m=4096,t=3,p=1$9Qp55jDFmVqtXX+rWzFvDA$Arft/rkmf0hOhRkoRVopK5pFaqi61"
        "ttVIJglq/IL8yo",
        "argon2i m=4096 t=3 p=1",
    ),
    # mkpasswd of whois 5.5.17, on libxcrypt 4.4.33
    Vector(
        "mkpasswd_yescrypt",
        "$y$j75$inkZaHwymlF8ykeI11C4e.$JasjTjNQYTFXUVqyjsKDcWXUaU1xaaopLOlnF5Q60h6",
        "crypt $y$ N=1024 r=8",
    ),
    Vector(
        "mkpasswd_gost",
        "$gy$j75$cjJyRFn7HdKsLnNcpPmWp/$1pYMttHY6yrqe7FranRA6Bu0SmsOKlDLhDPD.J206m3",
        "crypt $gy$ N=1024 r=8",
    ),
    Vector(
        "mkpasswd_scrypt",
        "$7$BU..../....GHgMVlJx5yjr9ztvW6y4x/$/wRMEA7RuByCkRXUF5idjAqWFygIflOQs/H7uYYC218",
        "crypt $7$ N=8192 r=32",
    ),
    # phpass' and Drupal's algorithm, by PHP 8.2.36's hash()
    Vector("phpass", "$P$6saltsaltKzA4Hrlv/LGpBiE7aDxBz1", "phpass $P$ rounds=256"),
    Vector("phpbb", "$H$6saltsaltKzA4Hrlv/LGpBiE7aDxBz1", "phpass $H$ rounds=256"),
    Vector(
        "drupal",
        "$S$6saltsalt5.fJ7pdePTAsgZZy90x5.KWk.XGTSra873SitwY3SlY",
        "phpass $S$ rounds=256",
    ),
    Vector(
        "drupal_of_md5",
        "U$S$6saltsaltE8o8HV3oDLe1yV/lJhh3jaDaZcDw0/p4wGWifrSBgDr",
        "phpass U$S$ rounds=256",
    ),
    # The columns of Discourse, Gitea and Keycloak: by PHP 8.2.36's hash_pbkdf2(), OpenSSL 3's kdf
    # command and Argon2's own
    Vector(
        "discourse",
        "$pbkdf2-sha256$i=1000,l=32$0123456789abcdef0123456789abcdef$28be008ea0b6df0d5a51cd2113bb0"
        "804d716085f78c3f4d8a75cb62adf413ded",
        "pbkdf2-sha256 iterations=1000",
    ),
    Vector(
        "gitea_pbkdf2",
        f"pbkdf2$1000$50${SALT}$e0db1c11dd4a8aec7c8ac6f34e0e59f52a558aa3d1bb75fc2a93ba2c3eeb488e2c"
        "a76e2aad14846c96947c07d588d5698d71",
        "pbkdf2-sha256 iterations=1000 blocks=2",
    ),
    Vector(
        "gitea_old_salt",
        "pbkdf2$1000$50$AbCdEfGhIj$1b80738a1627f30687161ddf075fece1a161a83cebdec0cf371de225465ddb8"
        "3cf609eed0a2feb0406ae3095b454e7d7573a",
        "pbkdf2-sha256 iterations=1000 blocks=2",
    ),
    Vector(
        "gitea_scrypt",
        f"scrypt$1024$8$2$50${SALT}$9daff73f87b1792d1763a4d2f2a9da14dcca400cbd70a97863fb2f5d745d9e"
        "49f37879e3d630cd3bb403d15d7fb3331a6041",
        "scrypt N=1024 r=8 p=2",
    ),
    Vector(
        "gitea_argon2",
        "argon2$2$1024$2$50$6162636465666768696a6b6c6d6e6f70$e77b1eaea754603c5493d53aa235b5619d89e"
        "2025ec2f3858c8661f1670c3d2596a12285cf224533f9dfbc1a6237981e3bad",
        "argon2id m=1024 t=2 p=2",
    ),
    Vector(
        "gitea_bcrypt",
        f"bcrypt$10${SALT}$$2y$04$DyxowJBaT.ZDsDkcUiE5OOhga0WUw.yl/eK7wbD95Wj8ga7PXA6oS",
        "bcrypt cost=4",
    ),
    Vector(
        "keycloak_pbkdf2_sha256",
        '{"hashIterations":1000,"algorithm":"pbkdf2-sha256","additionalParameters":{}}'
        '{"value":"4NscEd1Kiux8isbzTg5Z9SpViqPRu3X8KpO6LD7rSI4sp24qrRSEbJaUfAfViNVpjXHk9RHa+QP2QP5'
        'q7i6DUA==","salt":"oaGhoaGhoaGhoaGhoaGhoQ==","additionalParameters":{}}',
        "pbkdf2-sha256 iterations=1000 blocks=2",
    ),
    Vector(
        "keycloak_pbkdf2_sha512",
        '{"hashIterations":1000,"algorithm":"pbkdf2-sha512","additionalParameters":{}}'
        '{"value":"qlHc1MXVfsPQsNnKl8k7RPsccxnwOw4zbsC3yFVdvfuvoHp6XBxqByN4qdSmhHgZnQBe0vY9ioN8Hf1'
        'FuESK/w==","salt":"oaGhoaGhoaGhoaGhoaGhoQ==","additionalParameters":{}}',
        "pbkdf2-sha512 iterations=1000",
    ),
    Vector(
        "keycloak_argon2",
        '{"hashIterations":5,"algorithm":"argon2","additionalParameters":{"hashLength":["32"],'
        '"memory":["1024"],"type":["id"],"version":["1.3"],"parallelism":["1"]}}'
        '{"value":"0QDUmUXPNCRmZWyL5cXwVa3CEOIBix0Cldxw5qHmlr0=","salt":"YWJjZGVmZ2hpamtsbW5vcA==",'
        '"additionalParameters":{}}',
        "argon2id m=1024 t=5 p=1",
    ),
)
