/*
 * fuzz_netguard.c
 *		Any text as a list of networks, any bytes as an address.
 *
 * Lists come from settings and addresses from name servers.  The parser must
 * read neither beyond its text nor beyond its table, and the judgement must be
 * the same for an address as for its text.  libFuzzer entry point: 16 bytes of
 * address, then the list.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "../../src/netguard.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
compare(const RetryNetguard *guard, const struct sockaddr *address, const void *raw)
{
	char		text[INET6_ADDRSTRLEN];
	char		rule[RETRY_NETGUARD_RULE_TEXT] = "";
	char		rule_text[RETRY_NETGUARD_RULE_TEXT] = "";
	bool		literal;
	bool		by_address = retry_netguard_check(guard, address, rule, sizeof(rule));
	bool		by_text;

	inet_ntop(address->sa_family, raw, text, sizeof(text));
	by_text = retry_netguard_check_text(guard, text, &literal, rule_text, sizeof(rule_text));
	if (!literal || by_text != by_address || strcmp(rule, rule_text) != 0)
	{
		fprintf(stderr, "%s is judged in two ways\n", text);
		abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static RetryNetguard guard;
	struct sockaddr_in in = {0};
	struct sockaddr_in6 in6 = {0};
	char		err[200] = "";
	char	   *text;
	bool		literal;

	if (size < 16)
		return 0;
	in.sin_family = AF_INET;
	memcpy(&in.sin_addr, data, 4);
	in6.sin6_family = AF_INET6;
	memcpy(&in6.sin6_addr, data, 16);
	text = strndup((const char *) data + 16, size - 16);
	retry_netguard_check_text(&guard, text, &literal, NULL, 0);
	if (!retry_netguard_parse(text, &guard.blocked, err, sizeof(err)) && err[0] == '\0')
		abort();
	compare(&guard, (struct sockaddr *) &in, &in.sin_addr);
	compare(&guard, (struct sockaddr *) &in6, &in6.sin6_addr);
	free(text);
	return 0;
}
