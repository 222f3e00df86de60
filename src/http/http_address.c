/*
 * http_address.c
 *		Which addresses are on the public internet.
 *
 * Everything that IANA sets aside is refused: loopback, private and link-local
 * networks (with the metadata services of clouds), documentation, benchmarks,
 * multicast; and whatever wraps an IPv4 address is judged by that address.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "http/http.h"

static const struct
{
	uint32		net;
	int			bits;
}			special4[] =
{
	{0x00000000, 8}, {0x0A000000, 8}, {0x64400000, 10}, {0x7F000000, 8},
	{0xA9FE0000, 16}, {0xAC100000, 12}, {0xC0000000, 24}, {0xC0000200, 24},
	{0xC0586300, 24}, {0xC0A80000, 16}, {0xC6120000, 15}, {0xC6336400, 24},
	{0xCB007100, 24}, {0xE0000000, 4}, {0xF0000000, 4},
};

static const struct
{
	uint8		net[8];
	int			bits;
}			special6[] =
{
	{{0x01, 0x00}, 64},			/* discard only */
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48}, /* local-use NAT64 */
	{{0x20, 0x01, 0x00, 0x00}, 23}, /* IETF protocols, Teredo */
	{{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
	{{0x3f, 0xff, 0x00}, 20},
	{{0x5f, 0x00}, 16},			/* segment routing */
	{{0xfc, 0x00}, 7},			/* unique local */
	{{0xfe, 0x80}, 10},			/* link-local */
	{{0xfe, 0xc0}, 10},			/* site-local, of old */
	{{0xff, 0x00}, 8},			/* multicast */
};

static bool
public4(uint32 address)
{
	for (int i = 0; i < lengthof(special4); i++)
		if (((address ^ special4[i].net) >> (32 - special4[i].bits)) == 0)
			return false;
	return true;
}

static uint32
word(const uint8 *p)
{
	return ((uint32) p[0] << 24) | ((uint32) p[1] << 16) | ((uint32) p[2] << 8) | p[3];
}

static bool
prefix_matches(const uint8 *a, const uint8 *net, int bits)
{
	if (memcmp(a, net, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || ((a[bits / 8] ^ net[bits / 8]) >> (8 - bits % 8)) == 0;
}

static bool
public6(const uint8 *a)
{
	static const uint8 zeros[12] = {0};
	static const uint8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	static const uint8 nat64[12] = {0x00, 0x64, 0xff, 0x9b};

	/* unspecified, loopback and the deprecated compatible form */
	if (memcmp(a, zeros, 12) == 0)
		return false;
	if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0)
		return public4(word(a + 12));
	if (a[0] == 0x20 && a[1] == 0x02)	/* 6to4 */
		return public4(word(a + 2));
	for (int i = 0; i < lengthof(special6); i++)
		if (prefix_matches(a, special6[i].net, special6[i].bits))
			return false;
	return true;
}

bool
http_address_public(const struct sockaddr *address)
{
	switch (address->sa_family)
	{
		case AF_INET:
			return public4(ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr));
		case AF_INET6:
			return public6(((const struct sockaddr_in6 *) address)->sin6_addr.s6_addr);
		default:
			return false;
	}
}
