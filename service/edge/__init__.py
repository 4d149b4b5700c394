"""What holds for every request before any route sees it: sockets, bodies, deadlines, origins.

connections   uvicorn's HTTP protocol with limits on what it leaves open
middleware    the outermost layer: what holds for every request, whatever its route
request_head  what the head of a request must say
request_body  the body of one request as it comes in
fast_routes   past the framework's routing, for the requests that come by the thousand
"""
