/*
 * fuzz_pem.c
 *		Any text as certificates, and as a client certificate with its key.
 *
 * Nothing but the reading is tried: what is accepted looks like it, what is
 * refused says why, and a text cannot be both.
 */
#include "postgres.h"

#include "../../src/pem.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

#define CERTIFICATE "-----BEGIN CERTIFICATE-----\n"

static void
try(const char *text, int len)
{
	char		why[128] = "";
	bool		authorities = retry_pem_check_authorities(text, len, why, sizeof(why));
	bool		identity;

	MUST(authorities || why[0] != '\0');
	identity = retry_pem_check_identity(text, len, why, sizeof(why));
	MUST(identity || why[0] != '\0');
	MUST(!(authorities && identity));
	MUST(!(authorities || identity) || retry_pem_is_like(text, len));
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	/* copies of just this size, so that a look beyond the end is seen */
	char	   *text = malloc(size > 0 ? size : 1);
	char	   *part = malloc(size + sizeof(CERTIFICATE) - 1);

	memcpy(text, data, size);
	memcpy(part, CERTIFICATE, sizeof(CERTIFICATE) - 1);
	memcpy(part + sizeof(CERTIFICATE) - 1, data, size);
	try(text, size);
	try(part, size + sizeof(CERTIFICATE) - 1);
	free(text);
	free(part);
	return 0;
}
