/*
 * evloop.c
 *	  curl's sockets in one epoll set, many events handled per wake.
 *
 * curl asks for a socket to be watched when a request waits for its answer and
 * to be forgotten when the answer is complete.  Followed literally, that is
 * two system calls for every request on a kept-alive connection.  So a socket
 * that curl no longer needs stays in the set, in the hope that the next
 * request on it asks for the same thing; only if it becomes ready while idle
 * (the peer closed it) is it taken out.  This is safe only while no descriptor
 * can be closed, and its number reused, behind our back: it is done for the
 * sockets opened and closed through our own callbacks and for no others (the
 * name resolver has some).
 *
 * Everything here runs inside curl's callbacks or around them: no palloc, no
 * ereport.
 */
#include "postgres.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "evloop.h"

/* ready sockets taken from the kernel at once */
#define EVENTS_PER_WAIT	256

/* rounds of a full EVENTS_PER_WAIT in one call, lest a flood starve the rest */
#define MAX_ROUNDS		8

/* A multi handle and the moment it next wants to be called. */
typedef struct Member
{
	RetryEvloop *loop;
	CURLM	   *multi;
	int64		deadline_us;	/* monotonic; -1: none, 0: at once */
} Member;

/* What is known of one descriptor; the table is indexed by it. */
typedef struct SocketState
{
	Member	   *owner;			/* whose connection it is */
	uint32_t	registered;		/* EPOLLIN, EPOLLOUT as the kernel knows them */
	bool		in_set;			/* member of the epoll set */
	bool		wanted;			/* curl wants events now */
	bool		ours;			/* opened and closed through our callbacks */
	bool		read_from;		/* curl has waited for something to read */
	void		(*ready) (void *arg);	/* not curl's any more; NULL: it is */
	void	   *arg;
} SocketState;

struct RetryEvloop
{
	int			epoll_fd;
	SocketState *sockets;
	int			capacity;
	int			member_count;
	Member		members[RETRY_EVLOOP_MAX_MULTIS];
	int			error;			/* errno of a callback that could not do its
								 * work */
};

int64
retry_evloop_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The entry of a descriptor, NULL when memory is short. */
static SocketState *
socket_state(RetryEvloop *loop, curl_socket_t fd)
{
	if (fd < 0)
		return NULL;
	if (fd >= loop->capacity)
	{
		int			capacity = Max(loop->capacity, 64);
		SocketState *grown;

		while (capacity <= fd)
			capacity *= 2;
		grown = realloc(loop->sockets, sizeof(SocketState) * capacity);
		if (grown == NULL)
			return NULL;
		memset(grown + loop->capacity, 0, sizeof(SocketState) * (capacity - loop->capacity));
		loop->sockets = grown;
		loop->capacity = capacity;
	}
	return &loop->sockets[fd];
}

static void
forget_socket(RetryEvloop *loop, SocketState *state, curl_socket_t fd)
{
	if (state->in_set)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	state->in_set = false;
	state->registered = 0;
}

/* Tells the kernel what to report of a socket; false, with errno, when it cannot. */
static bool
register_socket(RetryEvloop *loop, SocketState *state, curl_socket_t fd, uint32_t wanted)
{
	struct epoll_event event;

	if (state->in_set && state->registered == wanted)
		return true;
	memset(&event, 0, sizeof(event));
	event.events = wanted;
	event.data.fd = fd;
	if (epoll_ctl(loop->epoll_fd, state->in_set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
	{
		/* our picture of the set was wrong: believe the kernel */
		int			other = errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

		if ((errno != ENOENT && errno != EEXIST) ||
			epoll_ctl(loop->epoll_fd, other, fd, &event) != 0)
			return false;
	}
	state->in_set = true;
	state->registered = wanted;
	return true;
}

/* CURLMOPT_SOCKETFUNCTION */
static int
socket_callback(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	Member	   *member = arg;
	RetryEvloop *loop = member->loop;
	SocketState *state = socket_state(loop, fd);
	uint32_t	wanted = 0;

	/*
	 * A failure is kept for retry_evloop_run to report: returning it would
	 * make curl give up the multi handle for good.
	 */
	if (state == NULL)
	{
		loop->error = ENOMEM;
		return 0;
	}
	if (state->ready != NULL)
		return 0;
	if (what == CURL_POLL_REMOVE || what == CURL_POLL_NONE)
	{
		state->wanted = false;
		if (!state->ours)
			forget_socket(loop, state, fd);
		return 0;
	}

	if (what & CURL_POLL_IN)
	{
		wanted |= EPOLLIN;
		state->read_from = true;
	}
	if (what & CURL_POLL_OUT)
		wanted |= EPOLLOUT;
	state->wanted = true;
	state->owner = member;
	if (!register_socket(loop, state, fd, wanted))
		loop->error = errno;
	return 0;
}

/* CURLMOPT_TIMERFUNCTION: curl wants to be called in timeout_ms */
static int
timer_callback(CURLM *multi, long timeout_ms, void *arg)
{
	Member	   *member = arg;

	if (timeout_ms < 0)
		member->deadline_us = -1;
	else if (timeout_ms == 0)
		member->deadline_us = 0;
	else
		member->deadline_us = retry_evloop_now_us() + (int64) timeout_ms * 1000;
	return 0;
}

bool
retry_evloop_socket_opened(RetryEvloop *loop, curl_socket_t fd)
{
	SocketState *state = socket_state(loop, fd);

	if (state == NULL)
		return false;
	memset(state, 0, sizeof(*state));
	state->ours = true;
	return true;
}

bool
retry_evloop_read_from(const RetryEvloop *loop, curl_socket_t fd)
{
	return fd >= 0 && fd < loop->capacity && loop->sockets[fd].read_from;
}

int
retry_evloop_close_socket(void *arg, curl_socket_t fd)
{
	RetryEvloop *loop = arg;

	/*
	 * Closing takes it out of the epoll set only if no other process has a
	 * copy of it.  If one has, the entry would report events for ever, and
	 * there would be no descriptor left to remove it by.
	 */
	if (fd >= 0 && fd < loop->capacity)
	{
		SocketState closed = {.read_from = loop->sockets[fd].read_from};

		forget_socket(loop, &loop->sockets[fd], fd);
		loop->sockets[fd] = closed;
	}
	return close(fd);
}

bool
retry_evloop_watch(RetryEvloop *loop, curl_socket_t fd, bool writing, void (*ready) (void *arg), void *arg)
{
	SocketState *state = socket_state(loop, fd);

	if (state == NULL)
		return false;
	state->ready = ready;
	state->arg = arg;
	return register_socket(loop, state, fd, writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

RetryEvloop *
retry_evloop_create(void)
{
	RetryEvloop *loop = calloc(1, sizeof(RetryEvloop));

	if (loop == NULL)
		return NULL;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
	{
		free(loop);
		return NULL;
	}
	return loop;
}

void
retry_evloop_add(RetryEvloop *loop, CURLM *multi)
{
	Member	   *member = &loop->members[loop->member_count++];

	member->loop = loop;
	member->multi = multi;
	member->deadline_us = -1;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, member);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, member);
}

int
retry_evloop_fd(RetryEvloop *loop)
{
	return loop->epoll_fd;
}

long
retry_evloop_timeout_ms(RetryEvloop *loop)
{
	int64		first = -1;
	int64		left;
	int			i;

	for (i = 0; i < loop->member_count; i++)
	{
		int64		deadline = loop->members[i].deadline_us;

		if (deadline >= 0 && (first < 0 || deadline < first))
			first = deadline;
	}
	if (first <= 0)
		return first < 0 ? -1 : 0;
	left = first - retry_evloop_now_us();
	return left <= 0 ? 0 : (long) ((left + 999) / 1000);
}

/* Lets curl do everything whose time has come, new transfers included. */
static bool
run_timers(RetryEvloop *loop)
{
	int64		now = 0;
	bool		ok = true;
	int			running;
	int			i;

	for (i = 0; i < loop->member_count; i++)
	{
		Member	   *member = &loop->members[i];

		if (member->deadline_us < 0)
			continue;
		if (member->deadline_us > 0)
		{
			if (now == 0)
				now = retry_evloop_now_us();
			if (member->deadline_us > now)
				continue;
		}
		/* curl sets it anew from inside if it wants more */
		member->deadline_us = -1;
		if (curl_multi_socket_action(member->multi, CURL_SOCKET_TIMEOUT, 0, &running) != CURLM_OK)
			ok = false;
	}
	return ok;
}

/* Tells curl of one ready socket. */
static bool
run_socket(RetryEvloop *loop, const struct epoll_event *event)
{
	curl_socket_t fd = event->data.fd;
	SocketState *state = &loop->sockets[fd];
	int			mask = 0;
	int			running;

	/* removed by what an earlier event of this batch caused */
	if (!state->in_set)
		return true;
	if (state->ready != NULL)
	{
		state->ready(state->arg);
		return true;
	}
	if (!state->wanted)
	{
		/* idle and yet ready: closed by the peer, which curl finds out itself */
		forget_socket(loop, state, fd);
		return true;
	}
	if (event->events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
		mask |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (event->events & EPOLLERR)
		mask |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
	return curl_multi_socket_action(state->owner->multi, fd, mask, &running) == CURLM_OK;
}

int
retry_evloop_run(RetryEvloop *loop)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	bool		ok = run_timers(loop);
	int			error;
	int			round;

	for (round = 0; round < MAX_ROUNDS; round++)
	{
		int			count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, 0);
		int			i;

		for (i = 0; i < count; i++)
			ok = run_socket(loop, &events[i]) && ok;
		if (!run_timers(loop))
			ok = false;
		if (count < EVENTS_PER_WAIT)
			break;
	}
	error = loop->error;
	loop->error = 0;
	return error != 0 ? error : ok ? 0 : -1;
}

void
retry_evloop_destroy(RetryEvloop *loop)
{
	if (loop == NULL)
		return;
	close(loop->epoll_fd);
	free(loop->sockets);
	free(loop);
}
