/*
 * misbehave.h
 *		Behaviours that break the protocol or the connection.
 *
 * Split from behave.c because these write raw bytes on purpose: nothing here
 * is how a server should answer.
 */
#ifndef ENDPOINT_MISBEHAVE_H
#define ENDPOINT_MISBEHAVE_H

#include "conn.h"

/* `rest` is the path after the behaviour's name, without the slash. */
extern void do_hang(Conn *c, const Request *req, Slice rest);
extern void do_hang_accept(Conn *c, const Request *req, Slice rest);
extern void do_reset(Conn *c, const Request *req, Slice rest);
extern void do_reset_mid(Conn *c, const Request *req, Slice rest);
extern void do_close(Conn *c, const Request *req, Slice rest);
extern void do_drip(Conn *c, const Request *req, Slice rest);
extern void do_oversize(Conn *c, const Request *req, Slice rest);
extern void do_endless(Conn *c, const Request *req, Slice rest);
extern void do_malformed(Conn *c, const Request *req, Slice rest);
extern void do_encoding(Conn *c, const Request *req, Slice rest);
extern void do_gzip_lie(Conn *c, const Request *req, Slice rest);
extern void do_answer_twice(Conn *c, const Request *req, Slice rest);
extern void do_answer_early(Conn *c, const Request *req, Slice rest);
extern void do_early_close(Conn *c, const Request *req, Slice rest);
extern void do_100_continue(Conn *c, const Request *req, Slice rest);

#endif							/* ENDPOINT_MISBEHAVE_H */
