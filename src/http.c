/*
 * http.c
 *	  The HTTP client of a dispatcher: owns the transfers and drives them.
 *
 * Every transfer is in exactly one of five lists (idle, queued, running, done,
 * fetched), so that nothing can be lost between curl's queue and ours, and a
 * finished one keeps its easy handle and its buffers for the next request.
 * Signals are blocked once for each batch, not for each call into curl: that
 * is two system calls a turn.
 */
#include "postgres.h"

#include <errno.h>
#include <signal.h>

#include "http_private.h"

#define DEFAULT_MAX_IN_FLIGHT		256
#define DEFAULT_MAX_RESPONSE		65536
#define DEFAULT_HARD_LIMIT			(INT64CONST(16) * 1024 * 1024)
#define DEFAULT_USER_AGENT			"pg-retry/1.0"

/* connections kept by all shards together, however few transfers there may be */
#define MIN_CONNECTIONS	64

/* buffers larger than this are not kept for the next request */
#define KEEP_ARENA		(64 * 1024)
#define KEEP_RESPONSE	(16 * 1024)

static void
list_append(RetryTransferList *list, RetryTransfer *t)
{
	t->next = NULL;
	t->prev = list->tail;
	if (list->tail != NULL)
		list->tail->next = t;
	else
		list->head = t;
	list->tail = t;
	list->count++;
}

static void
list_remove(RetryTransferList *list, RetryTransfer *t)
{
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		list->head = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	else
		list->tail = t->prev;
	list->count--;
}

/* But for faults: a process that is at fault with those blocked dies unheard. */
static void
block_signals(sigset_t *old)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
	sigset_t	all;

	sigfillset(&all);
	for (int i = 0; i < (int) (sizeof(faults) / sizeof(faults[0])); i++)
		sigdelset(&all, faults[i]);
	sigprocmask(SIG_SETMASK, &all, old);
}

static void
restore_signals(const sigset_t *old)
{
	sigprocmask(SIG_SETMASK, old, NULL);
}

/* Connections that a shard keeps, in use or not; the oldest idle one goes. */
static void
limit_connections(RetryHttp *http, RetryHttpShard *shard)
{
	int			share = (MIN_CONNECTIONS + http->shard_count - 1) / http->shard_count;

	curl_multi_setopt(shard->multi, CURLMOPT_MAXCONNECTS,
					  http->max_connections > 0 ? (long) http->max_connections :
					  (long) Max(Min(http->shard_size, http->max_in_flight), share));
}

/* A shard with room for the transfer, made if need be; NULL when memory is short. */
static RetryHttpShard *
choose_shard(RetryHttp *http, const RetryTransfer *t)
{
	RetryHttpShard *shard;
	int			i = 0;

	do
	{
		shard = &http->shards[(t->origin_hash + i) % http->shard_count];
	} while (shard->running >= http->shard_size && ++i < http->shard_count);

	/* if there was none: the limit was lowered under way */
	if (shard->multi == NULL)
	{
		shard->multi = curl_multi_init();
		if (shard->multi == NULL)
			return NULL;
		retry_evloop_add(http->loop, shard->multi);
		limit_connections(http, shard);
	}
	return shard;
}

bool
retry_http_configure(RetryHttp *http, const RetryHttpOptions *options,
					 char *errbuf, size_t errbuf_size)
{
	char	   *user_agent = strdup(options->user_agent ? options->user_agent : DEFAULT_USER_AGENT);
	char	   *proxy = strdup(options->proxy ? options->proxy : "");
	char	   *ca_bundle = strdup(options->ca_bundle ? options->ca_bundle : "");
	int			i;

	if (user_agent == NULL || proxy == NULL || ca_bundle == NULL)
	{
		free(user_agent);
		free(proxy);
		free(ca_bundle);
		strlcpy(errbuf, "out of memory", errbuf_size);
		return false;
	}

	/* curl has its own copies, in the handles that are under way */
	free(http->user_agent);
	free(http->proxy);
	free(http->ca_bundle);
	http->user_agent = user_agent;
	http->proxy = proxy;
	http->ca_bundle = ca_bundle;
	http->max_in_flight = options->max_in_flight > 0 ? options->max_in_flight : DEFAULT_MAX_IN_FLIGHT;
	http->max_connections = Max(options->max_connections, 0);
	http->max_response_bytes = options->max_response_bytes == 0 ? DEFAULT_MAX_RESPONSE :
		Max(options->max_response_bytes, 0);
	http->hard_response_limit = options->hard_response_limit > 0 ? options->hard_response_limit : DEFAULT_HARD_LIMIT;
	http->hard_response_limit = Max(http->hard_response_limit, http->max_response_bytes);
	if (options->netguard != NULL)
		http->netguard = *options->netguard;
	else
		http->netguard.blocked.count = http->netguard.allowed.count = 0;
	http->settings++;
	http->shard_size = Max(RETRY_HTTP_SHARD_SIZE,
						   (http->max_in_flight + RETRY_EVLOOP_MAX_MULTIS - 1) / RETRY_EVLOOP_MAX_MULTIS);
	/* one that is in use stays in use */
	http->shard_count = Max(http->shard_count,
							(http->max_in_flight + http->shard_size - 1) / http->shard_size);
	for (i = 0; i < http->shard_count; i++)
		if (http->shards[i].multi != NULL)
			limit_connections(http, &http->shards[i]);
	return true;
}

RetryHttp *
retry_http_create(const RetryHttpOptions *options, char *errbuf, size_t errbuf_size)
{
	static bool curl_ready = false;
	RetryHttp  *http = NULL;
	sigset_t	old;

	block_signals(&old);
	if (!curl_ready && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		strlcpy(errbuf, "could not initialize libcurl", errbuf_size);
	else
	{
		curl_ready = true;
		http = calloc(1, sizeof(RetryHttp));
		if (http == NULL)
			strlcpy(errbuf, "out of memory", errbuf_size);
		else if ((http->loop = retry_evloop_create()) == NULL)
			snprintf(errbuf, errbuf_size, "could not create an epoll descriptor: %s", strerror(errno));
	}
	if (http != NULL &&
		(http->loop == NULL || !retry_http_configure(http, options, errbuf, errbuf_size)))
	{
		retry_http_destroy(http);
		http = NULL;
	}
	restore_signals(&old);
	return http;
}

static void
free_transfer(RetryTransfer *t)
{
	retry_mail_forget(t);
	curl_easy_cleanup(t->easy);
	retry_tls_let_go(t->http, t->tls);
	free(t->arena);
	free(t->response);
	free(t);
}

/* An idle transfer, or a new one; in no list.  NULL when memory is short. */
static RetryTransfer *
take_transfer(RetryHttp *http)
{
	RetryTransfer *t = http->idle.tail;

	if (t != NULL)
	{
		list_remove(&http->idle, t);
		return t;
	}
	t = calloc(1, sizeof(RetryTransfer));
	if (t == NULL)
		return NULL;
	t->http = http;
	t->easy = curl_easy_init();
	if (t->easy == NULL)
	{
		free(t);
		return NULL;
	}
	return t;
}

/* Back to the idle ones, or freed when there are enough of them. */
static void
give_back(RetryHttp *http, RetryTransfer *t)
{
	t->state = RETRY_TRANSFER_FREE;
	retry_mail_forget(t);
	if (http->idle.count + http->in_flight > http->max_in_flight)
	{
		free_transfer(t);
		return;
	}
	if (t->arena_size > KEEP_ARENA)
	{
		free(t->arena);
		t->arena = NULL;
		t->url = NULL;
		t->arena_size = 0;
	}
	if (t->response_size > KEEP_RESPONSE)
	{
		free(t->response);
		t->response = NULL;
		t->response_size = 0;
	}
	list_append(&http->idle, t);
}

static void
finish(RetryHttp *http, RetryTransfer *t)
{
	t->state = RETRY_TRANSFER_DONE;
	list_append(&http->done, t);
}

static RetryTransfer *
find_tag(const RetryTransferList *list, void *tag)
{
	RetryTransfer *t;

	for (t = list->head; t != NULL; t = t->next)
		if (t->result.tag == tag)
			return t;
	return NULL;
}

/* A transfer for a request that may be taken now; NULL with the reason when not. */
static RetryTransfer *
begin_transfer(RetryHttp *http, char *errbuf, size_t errbuf_size)
{
	RetryTransfer *t = NULL;

	if (http->in_flight >= http->max_in_flight)
		snprintf(errbuf, errbuf_size, "%d requests are in flight already", http->in_flight);
	else if ((t = take_transfer(http)) == NULL)
		strlcpy(errbuf, "out of memory", errbuf_size);
	return t;
}

/* It is to leave with the next run, if it could be made ready. */
static bool
enqueue_transfer(RetryHttp *http, RetryTransfer *t, bool ready, char *errbuf, size_t errbuf_size)
{
	if (!ready)
	{
		free_transfer(t);
		strlcpy(errbuf, "out of memory", errbuf_size);
		return false;
	}
	http->in_flight++;
	if (t->result.error != RETRY_HTTP_OK)
		finish(http, t);
	else
	{
		t->state = RETRY_TRANSFER_QUEUED;
		list_append(&http->queued, t);
	}
	return true;
}

bool
retry_http_start(RetryHttp *http, const RetryHttpRequest *request,
				 char *errbuf, size_t errbuf_size)
{
	RetryTransfer *t = begin_transfer(http, errbuf, errbuf_size);

	return t != NULL &&
		enqueue_transfer(http, t, retry_transfer_prepare(t, request), errbuf, errbuf_size);
}

bool
retry_http_repeat(RetryHttp *http, void *tag, const char *url, int32 timeout_ms,
				  void *second_tag, char *errbuf, size_t errbuf_size)
{
	RetryTransfer *source = find_tag(&http->running, tag);
	RetryTransfer *t;

	if (source == NULL)
	{
		strlcpy(errbuf, "it is not under way", errbuf_size);
		return false;
	}
	t = begin_transfer(http, errbuf, errbuf_size);
	return t != NULL &&
		enqueue_transfer(http, t, retry_transfer_repeat(t, source, url, timeout_ms, second_tag),
						 errbuf, errbuf_size);
}

int
retry_http_fd(RetryHttp *http)
{
	return retry_evloop_fd(http->loop);
}

long
retry_http_timeout_ms(RetryHttp *http)
{
	long		timeout;
	int64		left;

	if (http->queued.count > 0 || http->done.count > 0)
		return 0;
	timeout = retry_evloop_timeout_ms(http->loop);
	if (http->talking == 0)
		return timeout;
	for (RetryTransfer *t = http->running.head; t != NULL; t = t->next)
	{
		if (!t->talking)
			continue;
		left = Max((retry_mail_deadline_us(t) - retry_evloop_now_us() + 999) / 1000, 0);
		if (t->talk_over)
			left = 0;
		if (timeout < 0 || left < timeout)
			timeout = (long) left;
	}
	return timeout;
}

/* Hands curl what was prepared since the last turn. */
static void
send_queued(RetryHttp *http)
{
	RetryTransfer *t;

	while ((t = http->queued.head) != NULL)
	{
		RetryHttpShard *shard = choose_shard(http, t);
		CURLMcode	code = CURLM_OUT_OF_MEMORY;

		if (shard != NULL)
			code = curl_multi_add_handle(shard->multi, t->easy);
		list_remove(&http->queued, t);
		if (code != CURLM_OK)
		{
			retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "transfer could not be started: %s",
								curl_multi_strerror(code));
			finish(http, t);
			continue;
		}
		t->state = RETRY_TRANSFER_RUNNING;
		t->shard = shard;
		shard->running++;
		list_append(&http->running, t);
	}
}

/* Takes a running transfer out of curl; it is in no list afterwards. */
static void
stop_transfer(RetryHttp *http, RetryTransfer *t)
{
	curl_multi_remove_handle(t->shard->multi, t->easy);
	t->shard->running--;
	t->shard = NULL;
	list_remove(&http->running, t);
}

/* Takes what has finished out of one of curl's queues. */
static void
collect_finished(RetryHttp *http, RetryHttpShard *shard)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(shard->multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	code = message->data.result;
		char	   *private = NULL;
		RetryTransfer *t;

		if (message->msg != CURLMSG_DONE)
			continue;
		/* stopping it frees the message */
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
		t = (RetryTransfer *) private;
		if (t->talk != NULL && code == CURLE_OK && retry_mail_begin(t))
			continue;
		retry_transfer_conclude(t, code);
		stop_transfer(http, t);
		finish(http, t);
	}
}

/* Mails whose talk is over, or takes too long. */
static void
collect_talks(RetryHttp *http)
{
	RetryTransfer *next;
	int64		now_us = retry_evloop_now_us();

	for (RetryTransfer *t = http->running.head; t != NULL; t = next)
	{
		next = t->next;
		if (!t->talking || (!t->talk_over && now_us < retry_mail_deadline_us(t)))
			continue;
		retry_transfer_conclude(t, t->talk_over ? t->talk_code : CURLE_OPERATION_TIMEDOUT);
		stop_transfer(http, t);
		finish(http, t);
	}
}

/*
 * curl or epoll reported a fault that belongs to no single transfer.  Each
 * transfer's own timeout would end it some day; failing them now says why.
 */
static void
fail_running(RetryHttp *http, int error)
{
	RetryTransfer *t;

	while ((t = http->running.head) != NULL)
	{
		stop_transfer(http, t);
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "event loop failed: %s",
							error > 0 ? strerror(error) : "libcurl reported a fault");
		finish(http, t);
	}
}

void
retry_http_run(RetryHttp *http)
{
	sigset_t	old;
	int			error;
	int			i;

	block_signals(&old);
	send_queued(http);
	error = retry_evloop_run(http->loop);
	for (i = 0; i < http->shard_count; i++)
		if (http->shards[i].running > 0)
			collect_finished(http, &http->shards[i]);
	if (http->talking > 0)
		collect_talks(http);
	if (error != 0)
		fail_running(http, error);
	restore_signals(&old);
}

const RetryHttpResult *
retry_http_next(RetryHttp *http)
{
	RetryTransfer *t = http->done.head;

	if (t == NULL)
		return NULL;
	list_remove(&http->done, t);
	list_append(&http->fetched, t);
	return &t->result;
}

void
retry_http_release(RetryHttp *http, const RetryHttpResult *result)
{
	RetryTransfer *t = (RetryTransfer *) result;

	list_remove(&http->fetched, t);
	http->in_flight--;
	give_back(http, t);
}

int
retry_http_in_flight(RetryHttp *http)
{
	return http->in_flight;
}

bool
retry_http_cancel(RetryHttp *http, void *tag)
{
	RetryTransfer *t = find_tag(&http->queued, tag);
	sigset_t	old;

	if (t != NULL)
		list_remove(&http->queued, t);
	else if ((t = find_tag(&http->running, tag)) != NULL)
	{
		block_signals(&old);
		stop_transfer(http, t);
		restore_signals(&old);
	}
	else
		return false;
	http->in_flight--;
	give_back(http, t);
	return true;
}

static void
free_list(RetryTransferList *list)
{
	RetryTransfer *t = list->head;

	memset(list, 0, sizeof(*list));
	while (t != NULL)
	{
		RetryTransfer *next = t->next;

		free_transfer(t);
		t = next;
	}
}

void
retry_http_destroy(RetryHttp *http)
{
	sigset_t	old;
	int			i;

	if (http == NULL)
		return;
	block_signals(&old);
	for (RetryTransfer *t = http->running.head; t != NULL; t = t->next)
		curl_multi_remove_handle(t->shard->multi, t->easy);
	free_list(&http->running);
	free_list(&http->queued);
	free_list(&http->done);
	free_list(&http->fetched);
	free_list(&http->idle);
	/* closes the kept connections, through the loop: so before the loop goes */
	for (i = 0; i < http->shard_count; i++)
		if (http->shards[i].multi != NULL)
			curl_multi_cleanup(http->shards[i].multi);
	retry_evloop_destroy(http->loop);
	free(http->user_agent);
	free(http->proxy);
	free(http->ca_bundle);
	free(http);
	restore_signals(&old);
}
