"""What holds for every request before any route sees it: sockets, bodies, deadlines, origins.

connections  uvicorn's HTTP protocol with limits on what it leaves open
edge         the outermost layer: what holds for every request, whatever its route
heads        what the head of a request must say
inflow       the body of one request as it comes in
shortcuts    past the framework's routing, for the requests that come by the thousand
"""
