/*
 * fuzz_host_rule.c
 *		Any text as an allowed host, against any URL.
 *
 * What an entry means must not depend on how it is written: one that is read is
 * written out again, read, and must mean the same; and what it allows must have
 * its host at the end and its port.  libFuzzer entry point: entry and URL are
 * separated by a line break.
 */
#include "postgres.h"

#include "../../src/host_rule.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

static void
write_rule(const RetryHostRule *rule, char *text, size_t size)
{
	bool		brackets = strchr(rule->host, ':') != NULL;
	char		port[16] = "";

	if (rule->port == RETRY_HOST_PORT_ANY)
		strcpy(port, ":*");
	else if (rule->port != RETRY_HOST_PORT_DEFAULT)
		snprintf(port, sizeof(port), ":%d", rule->port);
	if (rule->host[0] == '\0')
		snprintf(text, size, "*%s", port);
	else
		snprintf(text, size, "%s%s%s%s%s", rule->below ? "*." : "", brackets ? "[" : "",
				 rule->host, brackets ? "]" : "", port);
}

static void
check_match(const RetryHostRule *rule, const char *text)
{
	RetryUrl	url;
	char		err[256];
	size_t		len = strlen(rule->host);

	if (!retry_url_check(text, &url, err, sizeof(err)) || !retry_host_rule_matches(rule, &url))
		return;
	MUST(strlen(url.host) >= len && strcmp(url.host + strlen(url.host) - len, rule->host) == 0);
	MUST(rule->below == (len > 0 && strlen(url.host) > len));
	MUST(rule->port == RETRY_HOST_PORT_ANY ||
		 url.port == (rule->port != RETRY_HOST_PORT_DEFAULT ? rule->port : url.https ? 443 : 80));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text = strndup((const char *) data, size);
	char	   *url = strchr(text, '\n');
	char		again[RETRY_HOST_RULE_TEXT + 16];
	char		err[256] = "";
	RetryHostRule rule;
	RetryHostRule second;

	if (url != NULL)
		*url++ = '\0';
	if (!retry_host_rule_parse(text, &rule, err, sizeof(err)))
		MUST(err[0] != '\0' && strlen(err) < sizeof(err));
	else
	{
		write_rule(&rule, again, sizeof(again));
		MUST(retry_host_rule_parse(again, &second, err, sizeof(err)));
		MUST(memcmp(&rule, &second, sizeof(rule)) == 0);
		if (url != NULL)
			check_match(&rule, url);
	}
	free(text);
	return 0;
}
