// The API's description, read and tried by Swagger UI, whose files come from a package beside the service.

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // its badge would ask a site elsewhere
});
