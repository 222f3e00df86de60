/*
 * address.c
 *		http_address.c: an IPv6 address that wraps an IPv4 address is as public
 *		as that, and never is a private one public.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "http/http.h"

static bool
public4(const uint8 *bytes)
{
	struct sockaddr_in a = {.sin_family = AF_INET};

	memcpy(&a.sin_addr, bytes, 4);
	return http_address_public((struct sockaddr *) &a);
}

static bool
public6(const uint8 *bytes)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6};

	memcpy(&a.sin6_addr, bytes, 16);
	return http_address_public((struct sockaddr *) &a);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	uint8		wrapped[16] = {0};
	bool		is_public;

	if (size < 16)
		return 0;
	is_public = public4(data);
	if (data[0] == 0 || data[0] == 10 || data[0] == 127 || data[0] >= 224 ||
		(data[0] == 169 && data[1] == 254) || (data[0] == 192 && data[1] == 168) ||
		(data[0] == 172 && (data[1] & 0xF0) == 16))
		FUZZ_CHECK(!is_public);
	wrapped[10] = wrapped[11] = 0xFF;
	memcpy(wrapped + 12, data, 4);
	FUZZ_CHECK(public6(wrapped) == is_public);
	if (public6(data))
	{
		struct in6_addr a;

		memcpy(&a, data, 16);
		FUZZ_CHECK(!IN6_IS_ADDR_LOOPBACK(&a) && !IN6_IS_ADDR_UNSPECIFIED(&a) &&
				   !IN6_IS_ADDR_LINKLOCAL(&a) && !IN6_IS_ADDR_SITELOCAL(&a) &&
				   !IN6_IS_ADDR_MULTICAST(&a) && (data[0] & 0xFE) != 0xFC);
	}
	return 0;
}
