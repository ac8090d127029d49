#!/usr/bin/env escript
%%! -noinput
%% A TLS-PSK client on Erlang's ssl: HOST PORT IDENTITY KEY(hex) SUITE (OpenSSL's name). Carries stdin
%% there and what comes back to stdout, as it is: Erlang's own input would change line ends.
main([Host, Port, Identity, Hex, Suite]) ->
    {ok, _} = application:ensure_all_started(ssl),
    Key = << <<(list_to_integer(Pair, 16))>> || Pair <- pairs(Hex) >>,
    Lookup = fun(psk, _Hint, Secret) -> {ok, Secret} end,
    Options = [binary, {active, true}, {versions, ['tlsv1.2']}, {verify, verify_none},
               {ciphers, [ssl:str_to_suite(Suite)]}, {psk_identity, Identity},
               {user_lookup_fun, {Lookup, Key}}, {reuse_sessions, false}],
    case ssl:connect(Host, list_to_integer(Port), Options, 20000) of
        {ok, Socket} ->
            carry(Socket, open_port({fd, 0, 1}, [stream, binary, eof]));
        {error, Reason} ->
            io:format(standard_error, "~p~n", [Reason]),
            halt(1)
    end.

pairs([High, Low | Rest]) -> [[High, Low] | pairs(Rest)];
pairs([]) -> [].

carry(Socket, Standard) ->
    receive
        {Standard, {data, Data}} -> ok = ssl:send(Socket, Data), carry(Socket, Standard);
        {Standard, eof} -> ssl:close(Socket), halt(0);
        {ssl, Socket, Data} -> port_command(Standard, Data), carry(Socket, Standard);
        {ssl_error, Socket, Reason} -> io:format(standard_error, "~p~n", [Reason]), halt(1);
        {ssl_closed, Socket} -> halt(0)
    end.
