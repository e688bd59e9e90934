/*
 * host_rule.c
 *		Reads one entry of a group's allowed hosts, and holds URLs against it.
 *
 * The host of an entry is read by the one reader of URLs, so that it can only
 * be written in ways in which a URL's host is understood, and equal hosts have
 * equal texts.  A name with *. before it is compared from its dot on: nothing
 * that merely ends alike is below it.
 */
#include "postgres.h"

#include "host_rule.h"

static bool
fail(char *err, size_t err_size, const char *message)
{
	strlcpy(err, message, err_size);
	return false;
}

/* Where the port begins, with its colon; the end of the text when there is none. */
static const char *
find_port(const char *text)
{
	const char *close = text[0] == '[' ? strchr(text, ']') : NULL;
	const char *colon = strchr(close != NULL ? close : text, ':');

	return colon != NULL ? colon : text + strlen(text);
}

/* A host with a port, or without, as the reader of URLs has it. */
static bool
read_host(const char *text, RetryHostRule *rule, char *err, size_t err_size)
{
	char		whole[RETRY_HOST_RULE_TEXT + 16];
	RetryUrl	url;

	snprintf(whole, sizeof(whole), "http://%s/", text);
	if (!retry_url_check(whole, &url, err, err_size))
		return false;
	if (rule->below && (url.ipv4 || url.ipv6))
		return fail(err, err_size, "nothing is below an address");
	strcpy(rule->host, url.host);
	if (rule->port != RETRY_HOST_PORT_ANY && *find_port(text) != '\0')
		rule->port = url.port;
	return true;
}

bool
retry_host_rule_parse(const char *text, RetryHostRule *rule, char *err, size_t err_size)
{
	char		copy[RETRY_HOST_RULE_TEXT + 1];
	char	   *port;

	memset(rule, 0, sizeof(*rule));
	if (strlen(text) >= sizeof(copy))
		return fail(err, err_size, "it is too long");
	if (strcspn(text, "/?#@") != strlen(text))
		return fail(err, err_size, "it is a host, not a URL");
	if (strncmp(text, "*.", 2) == 0)
	{
		rule->below = true;
		text += 2;
	}
	strcpy(copy, text);
	port = copy + (find_port(copy) - copy);
	if (strcmp(port, ":*") == 0)
	{
		rule->port = RETRY_HOST_PORT_ANY;
		*port = '\0';
	}
	if (!rule->below && copy[0] == '*' && (copy[1] == ':' || copy[1] == '\0'))
	{
		/* the port is read as that of some host */
		copy[0] = 'x';
		if (!read_host(copy, rule, err, err_size))
			return false;
		rule->host[0] = '\0';
		return true;
	}
	return read_host(copy, rule, err, err_size);
}

bool
retry_host_rule_matches(const RetryHostRule *rule, const RetryUrl *url)
{
	size_t		len = strlen(rule->host);
	size_t		url_len;

	if (rule->port == RETRY_HOST_PORT_DEFAULT)
	{
		if (!url->usual_port)
			return false;
	}
	else if (rule->port != RETRY_HOST_PORT_ANY && rule->port != url->port)
		return false;
	if (len == 0)
		return true;
	if (!rule->below)
		return strcmp(rule->host, url->host) == 0;
	url_len = strlen(url->host);
	return url_len > len + 1 && url->host[url_len - len - 1] == '.' &&
		strcmp(url->host + url_len - len, rule->host) == 0;
}
