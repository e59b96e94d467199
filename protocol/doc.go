// Package protocol is what both ends of a hop must agree on.
//
// A hop is one directed edge, sender to receiver, and every hop speaks this
// one protocol: client to broadcaster, broadcaster to reader, broadcaster to
// broadcaster, client straight to reader. A daemon puts a [Sink] behind a
// Receiver ([Receive]); whoever has content to pass on drives a [Sender].
// The two are twins: what one writes the other reads, in this order.
//
//	connection   TCP
//	  Hello ->              version, limits; nothing else is parsed before the peer's
//	  <- Hello              the client does not wait for it, but goes on
//	smux v2 on the connection, one stream for each transfer
//	  Offer ->              what is coming: name, size, digest, policy
//	  <- Accept             where to start, how much may be unacknowledged
//	  Chunk ... ->          content, in order, inside the window
//	  <- Ack ...            taken by the sink: send more
//	  <- Progress ...       how each leaf does; may be skipped
//	  Finish ->             that was all; its size and digest
//	  <- Ready              each leaf has it whole, checked, durable and hidden, or why not
//	  Commit ->             publish; or Abort: forget it
//	  <- Receipt ...        one final word from each leaf
//	A small file does not wait for Accept: Chunk and Finish go behind Offer.
//	Reject may come from the receiver at any time and ends the stream.
//	Query -> <- Status ... is the other exchange a stream can carry.
//	Ping -> <- Pong        both ways, whenever nothing was heard for a while
//
// Every frame is
//
//	length u32 | kind u8 | flags u8 | reserved u16 | payload (length bytes) | check u32
//
// big endian, where check is the CRC32C of all bytes before it, header
// included. Kinds, with what their payload is:
//
//	 1 Hello     JSON, both ways, once, on the bare connection
//	 2 Offer     JSON ->
//	 3 Accept    JSON <-
//	 4 Reject    JSON <-, any time; the stream ends after it
//	 5 Chunk     offset u64 | raw length u32 | codec u8 | reserved 3 | data ->
//	 6 Ack       offset u64 <-: absolute, cumulative, safe to repeat
//	 7 Progress  JSON <-, skippable
//	 8 Finish    JSON ->: a stream without it is a truncated file, never a file
//	 9 Ready     JSON <-
//	10 Commit    JSON ->
//	11 Abort     JSON ->
//	12 Receipt   JSON <-, one for each leaf
//	13 Query     JSON ->
//	14 Status    JSON <-, one for each daemon in the tree
//	15 Ping      empty, both ways
//	16 Pong      empty, both ways
//	17 Leaves    JSON <-: the first leaves of the Accept, Ready or Reject behind it
//	18 Limit     offset u64 <-: no chunk may end behind it until a later one
//
// JSON payloads are objects of at most [MaxControl] bytes; unknown fields are
// ignored, so messages can grow. A frame of an unknown kind is skipped when
// its flag bit 0 is set and ends the stream otherwise.
//
// Guarantees: content is acknowledged only when the sink took it; nothing is
// a file before Finish said so and its digest matched; nothing is published
// before Commit; memory for a transfer is bounded by its window; every wait
// ends ([DeadAfter], [WriteTimeout], [HelloTimeout]).
package protocol
