/*
 * http_settings.c
 *		The settings retry.* that steer the HTTP client, in the client's terms.
 *
 * See http_settings.h for why this is apart from the client and from those
 * who use it.
 */
#include "postgres.h"

#include "guc.h"
#include "http_settings.h"

bool
retry_http_settings(RetryHttpOptions *options, char *errbuf, size_t errbuf_size)
{
	static RetryNetguard guard;

	memset(options, 0, sizeof(*options));
	options->max_response_bytes = retry_max_response_bytes > 0 ? retry_max_response_bytes : -1;
	options->proxy = retry_proxy;
	options->ca_bundle = retry_ca_bundle;
	options->netguard = &guard;
	return retry_netguard_parse(retry_blocked_networks, &guard.blocked, errbuf, errbuf_size) &&
		retry_netguard_parse(retry_allowed_networks, &guard.allowed, errbuf, errbuf_size);
}
