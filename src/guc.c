/*
 * guc.c
 *		The settings of retry: definitions, limits, documentation and checks.
 *
 * A wrong value must be refused when it is set, by SET, ALTER SYSTEM or a
 * reload, and not be found out by a worker in the night; so each string has a
 * check hook that uses the same parser as the code that later reads it.
 *
 * Contexts: "postmaster" settings size shared memory.  Those that steer the
 * workers are "sighup".  retry.enabled is "superuser", because that is what
 * ALTER DATABASE ... SET can store; retry.max_request_bytes protects the store
 * from its users, so they cannot change it.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
#include "pool.h"
#include "shmem.h"
#include "url.h"

#define SECONDS_PER_DAY_INT		86400
#define MAX_RETENTION_DAYS		30	/* the ring of leaves is not longer */
#define MAX_DEAD_DAYS			3650

int			retry_dispatchers = 1;
int			retry_sql_workers = 2;
int			retry_max_in_flight = 256;
int			retry_lane_max_in_flight = 32;
int			retry_max_lanes = 16384;
int			retry_max_queued = 65536;
int			retry_max_request_bytes = 16 * 1024 * 1024;
int			retry_max_response_bytes = 64 * 1024;
int			retry_poll_interval_ms = 1000;
int			retry_alarm_interval_ms = 10 * 1000;
int			retry_retention_s = 7 * SECONDS_PER_DAY_INT;
int			retry_dead_letter_retention_s = 90 * SECONDS_PER_DAY_INT;
int			retry_audit_retention_s = 90 * SECONDS_PER_DAY_INT;
bool		retry_enabled = true;
char	   *retry_databases = NULL;
char	   *retry_blocked_networks = NULL;
char	   *retry_allowed_networks = NULL;
RetryNetguard retry_networks;
bool		retry_https_only = false;
char	   *retry_proxy = NULL;
char	   *retry_ca_bundle = NULL;
int			retry_log_level = DEBUG1;

static const struct config_enum_entry log_levels[] = {
	{"debug5", DEBUG5, false},
	{"debug4", DEBUG4, false},
	{"debug3", DEBUG3, false},
	{"debug2", DEBUG2, false},
	{"debug1", DEBUG1, false},
	{"debug", DEBUG2, true},
	{"log", LOG, false},
	{"info", INFO, false},
	{"notice", NOTICE, false},
	{"warning", WARNING, false},
	{NULL, 0, false}
};

/*
 * retry.blocked_networks, retry.allowed_networks: read once here, and put in
 * place when the value is; so there is no list that cannot be read.
 */
static bool
check_networks(char **newval, void **extra, GucSource source)
{
	RetryNetguardList *list = guc_malloc(LOG, sizeof(RetryNetguardList));
	char		reason[256];

	if (list == NULL)
		return false;
	if (retry_netguard_parse(*newval != NULL ? *newval : "", list, reason, sizeof(reason)))
	{
		*extra = list;
		return true;
	}
	/* the server frees only what belongs to a value that was taken */
	guc_free(list);
	GUC_check_errdetail("%s", reason);
	GUC_check_errhint("Give networks such as 10.0.0.0/8 or fd00::/8, or reserved, metadata, private or non-public, separated by commas.");
	return false;
}

static void
assign_blocked(const char *newval, void *extra)
{
	retry_networks.blocked = *(const RetryNetguardList *) extra;
}

static void
assign_allowed(const char *newval, void *extra)
{
	retry_networks.allowed = *(const RetryNetguardList *) extra;
}

/* retry.databases: '*', or names as in a list of identifiers */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy;
	List	   *names;
	bool		ok;

	if (*newval == NULL || strcmp(*newval, "*") == 0)
		return true;
	copy = pstrdup(*newval);
	ok = SplitIdentifierString(copy, ',', &names);
	list_free(names);
	pfree(copy);
	if (!ok)
	{
		GUC_check_errdetail("This is not a list of database names.");
		GUC_check_errhint("Give *, or names separated by commas, in double quotes where they have capitals or blanks.");
	}
	return ok;
}

/* retry.proxy: empty, or scheme://host:port and nothing more */
static bool
check_proxy(char **newval, void **extra, GucSource source)
{
	static const char *const schemes[] = {
		"http://", "https://", "socks4://", "socks4a://", "socks5://", "socks5h://", NULL
	};
	const char *const *scheme;
	const char *rest = NULL;
	char		reason[256];
	char	   *url;
	bool		ok;

	if (*newval == NULL || **newval == '\0')
		return true;
	for (scheme = schemes; *scheme != NULL && rest == NULL; scheme++)
	{
		if (pg_strncasecmp(*newval, *scheme, strlen(*scheme)) == 0)
			rest = *newval + strlen(*scheme);
	}
	if (rest == NULL)
	{
		GUC_check_errdetail("A proxy is given as scheme://host:port, with the scheme http, https, socks4, socks4a, socks5 or socks5h.");
		return false;
	}
	url = psprintf("http://%s", rest);
	ok = retry_url_check(url, NULL, reason, sizeof(reason));
	pfree(url);
	if (!ok)
		GUC_check_errdetail("%s", reason);
	else if (strcspn(rest, "/?#") != strlen(rest) && strcmp(rest + strcspn(rest, "/?#"), "/") != 0)
	{
		GUC_check_errdetail("A proxy has no path.");
		ok = false;
	}
	return ok;
}

/*
 * retry.ca_bundle: empty, or an absolute path.  That the file is there is for
 * the worker to find out, since it may be renewed at any time.
 */
static bool
check_ca_bundle(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || **newval == '\0' || is_absolute_path(*newval))
		return true;
	GUC_check_errdetail("The path of the certificates must be absolute.");
	return false;
}

static void
define_limits(bool preloading)
{
	DefineCustomIntVariable("retry.dispatchers",
							"Number of dispatchers for each database.",
							"Lanes are divided among them. Each needs a background worker slot (max_worker_processes).",
							&retry_dispatchers, 1, 1, RETRY_MAX_DISPATCHERS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.sql_workers",
							"Number of executors for each database, which run the functions of sql: targets.",
							"They start when there is something to run, and leave after a minute without. Each needs a background worker slot (max_worker_processes). 0: such tasks wait.",
							&retry_sql_workers, 2, 0, RETRY_MAX_SQL_WORKERS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	/*
	 * Only a library that is being preloaded may define a postmaster setting.
	 * Otherwise nothing reads it, and it only has to accept what
	 * postgresql.conf says.
	 */
	DefineCustomIntVariable("retry.max_in_flight",
							"Requests that one dispatcher has under way at most.",
							NULL,
							&retry_max_in_flight, 256, 1, 10000,
							preloading ? PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.lane_max_in_flight",
							"Requests that one lane has under way at most, unless its scene says otherwise.",
							NULL,
							&retry_lane_max_in_flight, 32, 1, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.max_lanes",
							"Lanes that one dispatcher keeps in memory at most.",
							"Lanes beyond are served in turn.",
							&retry_max_lanes, 16384, 64, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.max_queued",
							"Due tasks that one dispatcher keeps in memory at most.",
							"Tasks beyond stay in the store until there is room.",
							&retry_max_queued, 65536, 256, 10000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.max_request_bytes",
							"Largest body and headers that a task may have.",
							"retry.enqueue() refuses larger ones.",
							&retry_max_request_bytes, 16 * 1024 * 1024, 1024, 256 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.max_response_bytes",
							"Bytes of a response's body that are kept.",
							"A success rule over the body sees no more than this.",
							&retry_max_response_bytes, 64 * 1024, 0, 16 * 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
}

static void
define_times(void)
{
	DefineCustomIntVariable("retry.poll_interval",
							"How often an idle dispatcher looks for work that nothing woke it for.",
							"Prepared transactions, for example, wake nobody. Commits wake the dispatcher at once, whatever this says.",
							&retry_poll_interval_ms, 1000, 10, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.alarm_interval",
							"How often it is looked whether alarms fire.",
							"Only where there are rules for alarms, and not while nothing happens.",
							&retry_alarm_interval_ms, 10 * 1000, 100, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.retention",
							"How long finished tasks and their attempts are kept.",
							"At most 30 days. History goes a day at a time.",
							&retry_retention_s, 7 * SECONDS_PER_DAY_INT,
							0, MAX_RETENTION_DAYS * SECONDS_PER_DAY_INT,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.dead_letter_retention",
							"How long dead letters are kept.",
							NULL,
							&retry_dead_letter_retention_s, 90 * SECONDS_PER_DAY_INT,
							0, MAX_DEAD_DAYS * SECONDS_PER_DAY_INT,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("retry.audit_retention",
							"How long it is kept who did what.",
							"Rows of the audit that are younger cannot be deleted.",
							&retry_audit_retention_s, 90 * SECONDS_PER_DAY_INT,
							0, MAX_DEAD_DAYS * SECONDS_PER_DAY_INT,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
define_switches(void)
{
	DefineCustomBoolVariable("retry.enabled",
							 "Sends tasks.",
							 "When off, tasks are stored and wait. Can be set for one database with ALTER DATABASE.",
							 &retry_enabled, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("retry.databases",
							   "Databases in which dispatchers may run.",
							   "* for all that have the extension, or a list of names.",
							   &retry_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomEnumVariable("retry.log_level",
							 "Level of the workers' routine messages in the server's log.",
							 "Faults are logged as warnings and errors, whatever this says.",
							 &retry_log_level, DEBUG1, log_levels,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_network(void)
{
	DefineCustomStringVariable("retry.blocked_networks",
							   "Networks that requests must not reach.",
							   "Judged after name resolution. Private networks such as 10.0.0.0/8 are not among the defaults.",
							   &retry_blocked_networks, RETRY_NETGUARD_DEFAULT_BLOCKED,
							   PGC_SIGHUP, GUC_LIST_INPUT, check_networks, assign_blocked, NULL);
	DefineCustomStringVariable("retry.allowed_networks",
							   "Exceptions from retry.blocked_networks.",
							   NULL,
							   &retry_allowed_networks, "",
							   PGC_SIGHUP, GUC_LIST_INPUT, check_networks, assign_allowed, NULL);
	DefineCustomBoolVariable("retry.https_only",
							 "Sends nothing without TLS.",
							 "Requests to http URLs are refused. Groups can have it for themselves.",
							 &retry_https_only, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("retry.proxy",
							   "Proxy for all requests, scheme://host:port; empty for none.",
							   "The environment's proxies are never used. Names are then resolved by the proxy, which has to keep requests away from networks they must not reach.",
							   &retry_proxy, "",
							   PGC_SIGHUP, 0, check_proxy, NULL, NULL);
	DefineCustomStringVariable("retry.ca_bundle",
							   "File of the certificate authorities that are trusted; empty for the system's.",
							   NULL,
							   &retry_ca_bundle, "",
							   PGC_SIGHUP, 0, check_ca_bundle, NULL, NULL);
}

/*
 * Defines all settings and reserves the prefix, so that a misspelt one is
 * reported.  "preloading": the library is loaded by the postmaster.  Values
 * that were set before and are refused now are reported as WARNING, and the
 * defaults hold.
 */
void
retry_guc_init(bool preloading)
{
	define_limits(preloading);
	define_times();
	define_switches();
	define_network();
	MarkGUCPrefixReserved("retry");
}
