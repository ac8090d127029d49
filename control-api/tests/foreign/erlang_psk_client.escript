#!/usr/bin/env escript
%% A TLS-PSK client on Erlang's ssl: HOST PORT IDENTITY KEY(hex) SUITE (OpenSSL's name). Carries stdin
%% there and what comes back to stdout.
main([Host, Port, Identity, Hex, Suite]) ->
    {ok, _} = application:ensure_all_started(ssl),
    Key = << <<(list_to_integer(Pair, 16))>> || Pair <- pairs(Hex) >>,
    Lookup = fun(psk, _Hint, Secret) -> {ok, Secret} end,
    Options = [binary, {active, true}, {versions, ['tlsv1.2']}, {verify, verify_none},
               {ciphers, [ssl:str_to_suite(Suite)]}, {psk_identity, Identity},
               {user_lookup_fun, {Lookup, Key}}, {reuse_sessions, false}],
    case ssl:connect(Host, list_to_integer(Port), Options, 20000) of
        {ok, Socket} ->
            Owner = self(),
            ok = io:setopts(standard_io, [binary, {encoding, latin1}]),
            spawn_link(fun() -> lines(Owner) end),
            carry(Socket);
        {error, Reason} ->
            io:format(standard_error, "~p~n", [Reason]),
            halt(1)
    end.

pairs([High, Low | Rest]) -> [[High, Low] | pairs(Rest)];
pairs([]) -> [].

lines(Owner) ->
    case io:get_line("") of
        Line when is_binary(Line) -> Owner ! {line, Line}, lines(Owner);
        _ -> Owner ! over
    end.

carry(Socket) ->
    receive
        {line, Line} -> ok = ssl:send(Socket, Line), carry(Socket);
        {ssl, Socket, Data} -> io:put_chars(Data), carry(Socket);
        {ssl_error, Socket, Reason} -> io:format(standard_error, "~p~n", [Reason]), halt(1);
        {ssl_closed, Socket} -> halt(0);
        over -> ssl:close(Socket), halt(0)
    end.
