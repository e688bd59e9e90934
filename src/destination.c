/*
 * destination.c
 *		Whether a group's request may go to a URL, as far as the URL tells.
 *
 * The rules are those of retry.scene_group and the settings.  Refusing at
 * enqueue is a service to the caller; what protects is the judgement before
 * each attempt, by the rules of that moment.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "compat.h"
#include "destination.h"
#include "guc.h"
#include "scene.h"
#include "sqltarget.h"

PG_FUNCTION_INFO_V1(retry_check_hosts);

#define HOSTS_HINT \
	"Each element is a host, *.domain or *, with :port or :* for any port, or without for the port of the scheme."

void
retry_destination_read(const Datum *values, const bool *isnull, RetryDestination *to)
{
	char		why[256];
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	memset(to, 0, sizeof(*to));
	to->https_only = DatumGetBool(values[Group_https_only]);
	to->limited = !isnull[Group_allowed_hosts];
	if (!to->limited)
		return;
	deconstruct_array(DatumGetArrayTypeP(values[Group_allowed_hosts]), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &count);
	to->hosts = palloc(Max(count, 1) * sizeof(RetryHostRule));
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i] &&
			retry_host_rule_parse(TextDatumGetCString(elements[i]), &to->hosts[to->nhosts], why, sizeof(why)))
			to->nhosts++;
	}
}

void
retry_destination_copy(RetryDestination *copy, const RetryDestination *to)
{
	*copy = *to;
	if (to->nhosts == 0)
		return;
	copy->hosts = palloc(to->nhosts * sizeof(RetryHostRule));
	memcpy(copy->hosts, to->hosts, to->nhosts * sizeof(RetryHostRule));
}

static bool
host_allowed(const RetryDestination *to, const RetryUrl *url)
{
	if (!to->limited)
		return true;
	for (int i = 0; i < to->nhosts; i++)
	{
		if (retry_host_rule_matches(&to->hosts[i], url))
			return true;
	}
	return false;
}

const char *
retry_destination_refusal(const RetryDestination *to, const char *url)
{
	RetryUrl	parsed;
	char		why[256];

	/* nothing is set, mostly */
	if (!to->limited && !to->https_only && !retry_https_only)
		return NULL;
	if (retry_is_sql_target(url))
		return NULL;
	if (!retry_url_check(url, &parsed, why, sizeof(why)) &&
		!retry_url_check_mail(url, &parsed, why, sizeof(why)))
		return NULL;			/* the client refuses it, and says why */
	if (!parsed.https && (to->https_only || retry_https_only))
		return pg_strncasecmp(url, "http", 4) == 0 ? "blocked scheme: only https is allowed" :
			"blocked scheme: only mail servers with TLS are allowed";
	return host_allowed(to, &parsed) ? NULL : "blocked host: its group does not allow it";
}

/* "on_dead: " before what an argument is refused for. */
static const char *
prefix(const char *what)
{
	return what[0] == '\0' ? "" : psprintf("%s: ", what);
}

void
retry_destination_check(const char *what, const RetryUrl *url, const char *group,
						const RetryDestination *to)
{
	const char *host = strstr(url->origin, "://") + 3;
	char		rule[RETRY_NETGUARD_RULE_TEXT] = "";
	bool		literal;

	if (!url->https && (retry_https_only || (to != NULL && to->https_only)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%sURL is http, and only https is allowed", prefix(what)),
				 retry_https_only ? errhint("The setting retry.https_only is on.") :
				 errhint("https_only of group \"%s\" is true.", group)));
	if (to != NULL && !host_allowed(to, url))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%shost \"%s\" is not allowed for group \"%s\"", prefix(what), host, group),
				 errhint("Column allowed_hosts of retry.scene_group lists the hosts that are.")));
	if (!retry_netguard_check_text(&retry_networks, url->host, &literal, rule, sizeof(rule)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%shost \"%s\" is in a blocked network, %s", prefix(what), host, rule),
				 errhint("The settings retry.blocked_networks and retry.allowed_networks say which networks may be reached.")));
}

static void
check_host(const char *element, int number, void *arg)
{
	RetryHostRule rule;
	char		why[256];

	if (!retry_host_rule_parse(element, &rule, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("element %d of allowed_hosts, \"%.*s\", is invalid: %s", number,
						pg_mbcliplen(element, strlen(element), 100), element, why),
				 errhint(HOSTS_HINT)));
}

/* retry.check_hosts(hosts): for the constraint of retry.scene_group. */
Datum
retry_check_hosts(PG_FUNCTION_ARGS)
{
	static const RetryArrayRules rules = {
		"allowed_hosts", RETRY_HOST_RULES_MAX,
		"Use NULL for any host; paused keeps a group from sending.", HOSTS_HINT
	};

	if (!PG_ARGISNULL(0))
		retry_check_elements(PG_GETARG_ARRAYTYPE_P(0), &rules, check_host, NULL);
	PG_RETURN_BOOL(true);
}
